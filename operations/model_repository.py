"""Lay out a release: the model repository from the checkout's own templates, filled strictly."""

from __future__ import annotations

import json
from collections.abc import Generator

from pyinfra import host
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations.facts.provenance import Provenance
from operations.facts.releases import ReleaseFiles, TemplateFiles
from operations.plan import PlanError, commands
from operations.plan import model_repository as plan_model_repository
from operations.plan.profile_tables import Golden
from operations.plan.provenance import provenance
from operations.plan.release import Release
from operations.refusal import refuse
from operations.scripts import archive, host_script


@deploy("Model repository")
def lay_out(release: Release) -> None:
    """A release directory is complete before anything points to it, and not written to afterwards."""
    laid_out(name="Lay out the release", release=release)


@operation()
def laid_out(release: Release) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    The release's directory holds its model repository, its scripts, release.json and provenance.json, each as its
    manifest records.

    + release: what to lay out
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
        configs = plan_model_repository.render(
            templates, release.parameters, release.profile.model_parameters
        )
        for path, text in own.items():
            if path.endswith("/config.pbtxt"):
                plan_model_repository.parsed(path.split("/")[0], text)
    except PlanError as error:
        yield refuse(str(error))
        return
    made_of = host.get_fact(
        Provenance,
        tags=[image.tag for image in release.own_images],
        directories=[made.path for made in release.artifacts],
        tree=f"{release.source.path}/tree" if release.source else "",
    )
    files = {
        **{f"model_repository/{model}/config.pbtxt": text for model, text in configs.items()},
        **{f"model_repository/{path}": text for path, text in own.items()},
        **release.files,
        # what a rollback asks: not one of the planned files, so that another expectation makes no other release
        "golden.json": json.dumps(golden_requests(release), indent=2, sort_keys=True) + "\n",
        "release.json": json.dumps(release.document(), indent=2, sort_keys=True) + "\n",
        # what was found and not what is wanted: no input of the release's id either
        "provenance.json": json.dumps(provenance(release, made_of), indent=1, sort_keys=True) + "\n",
    }
    head = json.dumps(
        {
            "kind": "release",
            "key": release.id,
            "inputs": {"image": release.image.key, "model": release.settings.model},
        }
    )
    yield StringCommand(
        host_script(
            "lay_out_release.sh",
            {
                "FINAL": release.path,
                "PARTIAL": release.partial,
                "HEAD": head[:-1],
                "TEMPLATES": release.template_directory,
                "MODELS": "\n".join(release.models),
            },
            host_script("seal.sh", {}),
        ),
        _stdin=archive(files),
        _timeout=300,
    )


def golden_requests(release: Release) -> dict[str, object]:
    """The golden requests that need nothing but themselves, and where to ask them."""
    server = release.servers[0]
    asked = [g.model_dump() for g in release.profile.golden if isinstance(g, Golden)]
    return {"golden": asked, "address": server.address, "grpc_port": server.ports[1]}
