-- Documents, and their vectors by encoder: an upgrade to another encoder adds vectors beside the old ones, which are used until
-- `current` is switched, and again after a rollback.
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE documents (
    id text PRIMARY KEY CHECK (id <> ''),
    body jsonb NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX documents_body ON documents USING gin (body);

CREATE TABLE embeddings (
    document_id text NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    encoder text NOT NULL,
    embedding vector NOT NULL,
    PRIMARY KEY (document_id, encoder)
);
