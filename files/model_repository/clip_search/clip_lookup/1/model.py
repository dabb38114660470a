"""Embeddings -> the nearest document, by cosine distance, out of PostgreSQL with pgvector."""

import json

import numpy as np
import psycopg
import triton_python_backend_utils as pb_utils

# A document's distance is the mean of its distances to what was given; one without such a vector is not found.
# Each `ORDER BY` alone can use the HNSW index; the candidates of both are then compared exactly.
NEAREST = """
SELECT document_id FROM embeddings WHERE encoder = '{encoder}'
ORDER BY embedding::vector({size}) <=> %s::vector({size}) LIMIT 20
"""
DISTANCE = """
SELECT d.id, d.body, {distance} AS distance FROM documents d {joins} WHERE d.id = ANY(%s) ORDER BY distance, d.id LIMIT 1
"""


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.encoders = {kind: parameters[f"{kind}_encoder"]["string_value"] for kind in ("image", "text")}
        self.connection = None
        self._database()  # a database that is not there is a model that does not load

    def _database(self):
        if self.connection is None or self.connection.closed:
            self.connection = psycopg.connect(
                "host=/database user=search dbname=tritonhost connect_timeout=5", autocommit=True
            )
        return self.connection

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        given, image, text = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in ("given", "image_embedding", "text_embedding")
        )
        found = []
        for row, image_vector, text_vector in zip(given, image, text, strict=True):
            vectors = {"image": image_vector} if row[0] else {}
            if row[1]:
                vectors["text"] = text_vector
            try:
                found.append(self._nearest(vectors))
            except psycopg.OperationalError:  # the database was restarted: once more, with a new connection
                self.connection = None
                try:
                    found.append(self._nearest(vectors))
                except psycopg.Error as error:
                    return _refused(error)
            except psycopg.Error as error:
                return _refused(error)
        documents = [json.dumps(f[0], sort_keys=True).encode() if f else b"" for f in found]
        scores = [1.0 - f[1] if f else float("nan") for f in found]
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("document", np.array(documents, dtype=np.object_).reshape(-1, 1)),
                pb_utils.Tensor("score", np.array(scores, dtype=np.float32).reshape(-1, 1)),
            ]
        )

    def _nearest(self, vectors):
        cursor = self._database().cursor()
        written = {kind: "[" + ",".join(f"{v:.8g}" for v in vector) + "]" for kind, vector in vectors.items()}
        candidates = set()
        for kind, vector in written.items():
            query = NEAREST.format(encoder=self.encoders[kind], size=len(vectors[kind]))
            candidates |= {row[0] for row in cursor.execute(query, (vector,))}
        joins = " ".join(
            f"JOIN embeddings {kind} ON {kind}.document_id = d.id AND {kind}.encoder = '{self.encoders[kind]}'"
            for kind in written
        )
        distance = " + ".join(f"({kind}.embedding <=> %s::vector)" for kind in written)
        query = DISTANCE.format(distance=f"({distance}) / {len(written)}", joins=joins)
        row = cursor.execute(query, (*written.values(), sorted(candidates))).fetchone()
        return ({"id": row[0], "body": row[1]}, float(row[2])) if row else None


def _refused(error):
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return pb_utils.InferenceResponse([], pb_utils.TritonError(f"clip_search: database: {reason}"))
