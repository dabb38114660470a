"""SQL that brings a database to its newest version, and documents into it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any


def script(migrations: Mapping[int, str]) -> str:
    """
    psql's input that applies what was not applied yet.

    + migrations: number -> SQL

    For one transaction: a failing migration leaves the database as it was. The lock keeps two runs apart.
    """
    parts = [
        "SELECT pg_advisory_xact_lock(7466051);",
        "CREATE TABLE IF NOT EXISTS schema_migrations (version integer PRIMARY KEY, "
        "applied_at timestamptz NOT NULL DEFAULT now());",
    ]
    for version, sql in sorted(migrations.items()):
        parts += [
            f"SELECT NOT EXISTS (SELECT FROM schema_migrations WHERE version = {version}) AS pending \\gset",
            "\\if :pending",
            sql.strip(),
            f"INSERT INTO schema_migrations (version) VALUES ({version});",
            "\\endif",
        ]
    return "\n".join(parts) + "\n"


def store(documents: Sequence[Mapping[str, Any]], encoders: Mapping[str, int]) -> str:
    """
    psql's input that stores documents with their vectors, in the place of what is there under their ids.

    + documents: each {"id", "body", "vectors": {encoder: [numbers]}}
    + encoders: encoder -> numbers of its vectors, for the index that is made where it is missing
    """
    quote = f"$d{secrets.token_hex(8)}$"  # no document can hold it: it is drawn after they were written
    parts = [
        f"CREATE TEMPORARY TABLE given ON COMMIT DROP AS SELECT * FROM jsonb_to_recordset({quote}"
        f"{json.dumps(list(documents))}{quote}::jsonb) AS t(id text, body jsonb, vectors jsonb);",
        "INSERT INTO documents (id, body) SELECT id, body FROM given "
        "ON CONFLICT (id) DO UPDATE SET body = excluded.body, changed_at = now();",
        # what a document no longer has is not found any more; vectors of other encoders are other releases'
        "DELETE FROM embeddings e USING given g WHERE e.document_id = g.id AND e.encoder = ANY ("
        f"ARRAY[{', '.join(repr(name) for name in sorted(encoders))}]::text[]);",
        "INSERT INTO embeddings (document_id, encoder, embedding) SELECT g.id, v.key, v.value::text::vector "
        "FROM given g, jsonb_each(g.vectors) v "
        "ON CONFLICT (document_id, encoder) DO UPDATE SET embedding = excluded.embedding;",
    ]
    for encoder, size in sorted(encoders.items()):
        # partial and cast, because vectors of several lengths share the column:
        # https://github.com/pgvector/pgvector#frequently-asked-questions
        parts.append(
            f'CREATE INDEX IF NOT EXISTS "{index_name(encoder)}" ON embeddings USING hnsw '
            f"((embedding::vector({size})) vector_cosine_ops) WHERE encoder = '{encoder}';"
        )
    return "\n".join(parts) + "\n"


def index_name(encoder: str) -> str:
    """A name PostgreSQL keeps whole: it cuts at 63 bytes."""
    return f"embeddings_{encoder.replace('/', '_')}"[:40] + encoder[-12:]
