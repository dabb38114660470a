"""Port 8001 of the mirror: the part of the Hub's HTTP interface that huggingface_hub uses for downloads, and fault control."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from urllib.parse import parse_qs, quote

from tests.lab.mirror.handler import Handler
from tests.lab.mirror.hubindex import DATASETS, File, Model, load

Serve = Callable[[Model, list[str]], None]


class HubHandler(Handler):
    """Serves the models and data sets of <cache>/hub.

    Listings are open for gated models too, as on the public Hub; files are not.
    """

    def route(self) -> None:
        parts = self.parts(self.url_path)
        if parts == ["_faults"]:
            self._faults()
        elif self.command not in ("GET", "HEAD"):
            self.answer(405, b"the mirror only hands out\n")
        elif parts[:2] in (["api", "models"], ["api", DATASETS]) and len(parts) >= 4:
            kind = [DATASETS] if parts[1] == DATASETS else []
            self._with_model([*kind, *parts[2:4]], parts[4:], self._api)
        elif parts[0] == "lfs" and len(parts) >= (size := self._name_size(parts[1:])) + 3:
            self._with_model(parts[1 : size + 1], parts[size + 1 :], self._lfs)
        elif len(parts) >= (size := self._name_size(parts)) + 3 and parts[size] == "resolve":
            self._with_model(parts[:size], parts[size + 1 :], self._resolve)
        else:
            self._refuse(404, "RepoNotFound", "no such path; the mirror knows models and data sets only")

    @staticmethod
    def _name_size(parts: list[str]) -> int:
        """How many parts of the path are the name: <owner>/<name>, or datasets/<owner>/<name>."""
        return 3 if parts[:1] == [DATASETS] else 2

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.answer_json({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})

    def _with_model(self, name: list[str], rest: list[str], serve: Serve) -> None:
        model = load(self.server.cache / "hub", "/".join(name))
        if model is None:
            self._refuse(404, "RepoNotFound", "Repository not found")
        else:
            serve(model, rest)

    def _has_revision(self, model: Model, revision: str) -> bool:
        if revision in ("main", model.revision):
            return True
        self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return False

    def _allowed(self, model: Model) -> bool:
        """Whether the caller may read the model's files; answers the refusal itself."""
        if model.token_sha256 is None:
            return True
        token = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not token:
            self._refuse(401, "GatedRepo", f"Access to model {model.name} is restricted. Please log in.")
            return False
        if not hmac.compare_digest(hashlib.sha256(token.encode()).hexdigest(), model.token_sha256):
            self._refuse(
                403, "GatedRepo", f"Access to model {model.name} is restricted: you are not on its list."
            )
            return False
        return True

    def _api(self, model: Model, rest: list[str]) -> None:
        query = parse_qs(self.path.partition("?")[2])
        kind, revision = (rest[0], rest[1] if len(rest) > 1 else "main") if rest else ("revision", "main")
        if kind == "auth-check":
            if self._allowed(model):
                self.answer(200)
        elif not self._has_revision(model, revision):
            pass
        elif kind == "revision" and len(rest) <= 2:
            self._info(model, blobs=query.get("blobs", [""])[0].lower() in ("true", "1"))
        elif kind == "tree":
            self._tree(model, "/".join(rest[2:]), query.get("recursive", [""])[0].lower() in ("true", "1"))
        elif kind == "refs":
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": model.revision}
            self.answer_json({"branches": [branch], "tags": [], "converts": []})
        else:
            self._refuse(404, "EntryNotFound", f"the mirror does not know /{'/'.join(rest)}")

    def _info(self, model: Model, blobs: bool) -> None:
        def sibling(path: str, file: File) -> dict[str, object]:
            entry: dict[str, object] = {"rfilename": path}
            if blobs:
                entry |= {"size": file.size, "blobId": file.blob}
                if file.lfs:
                    entry["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 134}
            return entry

        self.answer_json(
            {
                "_id": model.revision[:24],
                "id": model.id,
                "modelId": model.id,
                "author": model.id.split("/")[0],
                "sha": model.revision,
                "private": False,
                "gated": "manual" if model.token_sha256 else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [sibling(path, file) for path, file in sorted(model.files.items())],
            },
            headers={"X-Repo-Commit": model.revision},
        )

    def _tree(self, model: Model, folder: str, recursive: bool) -> None:
        prefix = f"{folder}/" if folder else ""
        entries: dict[str, dict[str, object]] = {}
        for path, file in sorted(model.files.items()):
            if not path.startswith(prefix):
                continue
            inner = path.removeprefix(prefix).split("/")
            for depth in range(1, len(inner) if recursive else min(len(inner), 2)):
                directory = prefix + "/".join(inner[:depth])
                entries.setdefault(
                    directory, {"type": "directory", "oid": "0" * 40, "size": 0, "path": directory}
                )
            if recursive or len(inner) == 1:
                entries[path] = {"type": "file", "oid": file.blob, "size": file.size, "path": path}
                if file.lfs:
                    entries[path]["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
        if folder and not entries:
            self._refuse(404, "EntryNotFound", f"{folder} does not exist on main")
        else:
            self.answer_json(list(entries.values()))

    def _resolve(self, model: Model, rest: list[str]) -> None:
        revision, path = rest[0], "/".join(rest[1:])
        if not self._has_revision(model, revision) or not self._allowed(model):
            return
        file = model.files.get(path)
        commit = {"X-Repo-Commit": model.revision}
        if file is None:
            message = f"{path} does not exist"
            headers = {"X-Error-Code": "EntryNotFound", "X-Error-Message": message, **commit}
            self.answer_json({"error": message}, 404, headers)
        elif file.lfs:
            location = f"http://{self.headers['Host']}/lfs/{quote(model.name)}/{file.sha256}/{quote(path)}"
            self.answer(302, headers={"Location": location, **self._linked(model, file)})
        else:
            self.send_file(model.folder / path, file.etag, commit, path.rsplit("/", 1)[-1])

    def _linked(self, model: Model, file: File) -> dict[str, str]:
        """What a client must learn about an LFS file.

        Sent with the redirect, as the public Hub does, and also after it: some clients follow a redirect that
        stays on its host before they read any header.
        """
        return {
            "X-Repo-Commit": model.revision,
            "X-Linked-Etag": f'"{file.etag}"',
            "X-Linked-Size": str(file.size),
        }

    def _lfs(self, model: Model, rest: list[str]) -> None:
        """The storage behind the redirect: the path carries the file's name, so that fault rules can find it."""
        path = "/".join(rest[1:])
        file = model.files.get(path)
        if not self._allowed(model):
            return
        if file is None or file.sha256 != rest[0]:
            self._refuse(404, "EntryNotFound", f"no object {rest[0]} of that name")
        else:
            self.send_file(model.folder / path, file.etag, self._linked(model, file))

    def _faults(self) -> None:
        """PUT replaces the rules, GET shows them; only from the address that the mirror itself has."""
        if self.client_address[0] != self.server.server_address[0]:
            self.answer(403, b"fault rules are set from the mirror's own address\n")
        elif self.command == "PUT":
            try:
                self.server.rules.replace(self.request_body)
            except (ValueError, TypeError) as error:
                self.answer(400, f"{error}\n".encode())
            else:
                self.answer(204)
        else:
            self.answer(200, self.server.rules.as_json(), "application/json")
