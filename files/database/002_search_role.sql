-- The role of the server, which may only read.
CREATE ROLE search LOGIN;
GRANT SELECT ON documents, embeddings TO search;
