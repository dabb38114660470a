"""Write a release: its scripts, its records, and its model repository, from the checkout's own templates."""

from __future__ import annotations

import json
from collections.abc import Generator

from pyinfra import host, logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations.facts.provenance import Provenance
from operations.facts.releases import ReleaseFiles, TemplateFiles
from operations.plan import PlanError
from operations.plan.artifacts import commands
from operations.plan.audit.provenance import Found, provenance
from operations.plan.profile import model_repository as plan_model_repository
from operations.plan.profile.profiles import EngineProfile
from operations.plan.profile.tables import Golden
from operations.plan.release import Release
from operations.remote.refusal import refuse
from operations.scripts import archive, host_script


@deploy("Model repository")
def lay_out(release: Release) -> None:
    """A release directory is complete before anything points to it, and not written to afterwards."""
    laid_out(name="Write the release", release=release)


@operation()
def laid_out(release: Release) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    The release's directory holds its model repository, its scripts, release.json and provenance.json, each as its
    manifest records.

    + release: what to write
    """
    found = host.get_fact(ReleaseFiles, path=release.path)
    if found.complete:
        host.noop(f"release {release.id} is complete")
        return
    own = release.profile.model_files(commands.WEIGHTS)
    templates: dict[str, str] = {}
    if release.source:
        templates = host.get_fact(TemplateFiles, directory=release.template_directory, models=release.models)
        if missing := [model for model in release.models if model not in templates]:
            yield refuse(
                f"model repository: found no config.pbtxt of {', '.join(missing)} in {release.template_directory}, "
                f"expected the templates of tensorrtllm_backend {release.stack.backend_tag}; check repository.models"
            )
            return
    try:
        for warning in _left_as_they_are(release, templates):
            logger.warning(f"{host.print_prefix}{warning}")
        configs = plan_model_repository.render(
            templates, release.parameters, release.profile.model_parameters
        )
        for path, text in own.items():
            if path.endswith("/config.pbtxt"):
                plan_model_repository.parsed(path.split("/")[0], text)
    except PlanError as error:
        yield refuse(str(error))
        return
    made_of = _made_of(release)
    if made_of is None:
        return  # it could not be read, and pyinfra has said so and failed the host
    files = {
        **{f"model_repository/{model}/config.pbtxt": text for model, text in configs.items()},
        **{f"model_repository/{path}": text for path, text in own.items()},
        **_documents(release, made_of),
    }
    inputs = {"image": release.image.key, "model": release.settings.model}
    head = json.dumps({"kind": "release", "key": release.id, "inputs": inputs})
    yield StringCommand(
        host_script(
            "lay_out_release.sh",
            {
                "FINAL": release.path,
                "PARTIAL": release.partial,
                "HEAD": head[:-1],
                "TEMPLATES": release.template_directory,
                "SOURCE": release.source.path if release.source else "",
                "MODELS": "\n".join(release.models),
            },
            host_script("seal.sh", {}),
        ),
        _stdin=archive(files),
        _timeout=300,
    )


def _made_of(release: Release) -> Found | None:
    """What the host says of the images, artifacts and sources of a release."""
    found: Found | None = host.get_fact(
        Provenance,
        tags=[image.tag for image in release.own_images],
        directories=[made.path for made in release.artifacts],
        tree=f"{release.source.path}/tree" if release.source else "",
    )
    return found


def _documents(release: Release, made_of: Found) -> dict[str, str]:
    """The files of a release that say what it is: name -> text."""
    return {
        **release.files,
        # a rollback sends these. Not one of the planned files: a changed expectation must not change the release id
        "golden.json": json.dumps(golden_requests(release), indent=2, sort_keys=True) + "\n",
        "release.json": json.dumps(release.document(), indent=2, sort_keys=True) + "\n",
        # what was found, not what is wanted: not an input of the release id either
        "provenance.json": json.dumps(provenance(release, made_of), indent=1, sort_keys=True) + "\n",
    }


def _left_as_they_are(release: Release, templates: dict[str, str]) -> list[str]:
    """Warnings for placeholders that this tool does not know: a bare one is refused later, one in quotes stays."""
    profile = release.profile
    if not isinstance(profile, EngineProfile):
        return []
    unlisted, version = profile.repository.unlisted, release.stack.version
    found = plan_model_repository.unknown_placeholders(templates, version, unlisted)
    return [
        f"{model}/config.pbtxt: placeholder {name} is not known here and is left as it is; to fill it, "
        f"{plan_model_repository.how_to_fill(name)}"
        for model, names in found.items()
        for name in names
    ]


def golden_requests(release: Release) -> dict[str, object]:
    """The golden requests that need no documents, and the address to send them to."""
    server = release.servers[0]
    requests = [g for g in release.profile.golden_requests if isinstance(g, Golden)]
    # an earlier version of this tool refuses a key that it does not know
    asked = [g.model_dump(exclude=set() if g.filler_words else {"filler_words"}) for g in requests]
    return {"golden": asked, "address": server.address, "grpc_port": server.ports[1]}
