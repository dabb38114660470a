"""SQL that migrates a database to its newest version and stores documents in it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any


def script(migrations: Mapping[int, str]) -> str:
    """
    psql's input that applies the migrations that are not applied yet.

    + migrations: number -> SQL

    For one transaction: a failing migration leaves the database unchanged. The lock prevents two runs at the same time.
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
    psql's input that stores documents with their vectors, replacing those with the same ids.

    + documents: each {"id", "body", "vectors": {encoder: [numbers]}}
    + encoders: encoder -> length of its vectors, for its index, which is made if it is missing
    """
    quote = f"$d{secrets.token_hex(8)}$"  # no document can contain it: it is drawn after they were written
    parts = [
        f"CREATE TEMPORARY TABLE given ON COMMIT DROP AS SELECT * FROM jsonb_to_recordset({quote}"
        f"{json.dumps(list(documents))}{quote}::jsonb) AS t(id text, body jsonb, vectors jsonb);",
        "INSERT INTO documents (id, body) SELECT id, body FROM given "
        "ON CONFLICT (id) DO UPDATE SET body = excluded.body, changed_at = now();",
        # a document is not found by a part that it no longer has; vectors of other encoders belong to other releases
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
    """A name of less than 63 bytes, at which PostgreSQL cuts it."""
    return f"embeddings_{encoder.replace('/', '_')}"[:40] + encoder[-12:]
