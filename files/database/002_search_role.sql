-- What the server connects as: it reads, and nothing else.
CREATE ROLE search LOGIN;
GRANT SELECT ON documents, embeddings TO search;
