"""``atriva serve`` and ``atriva token``: models on the network, and who may ask them."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from atriva_inference.errors import OptionError
from atriva_ray.cli.labels import read_labels
from atriva_ray.cli.notices import hushed, quiet_ray, shows_notices
from atriva_ray.cli.preprocessing import (
    Color,
    Fit,
    Layout,
    Mean,
    Preprocess,
    Resize,
    Scale,
    read_preprocessing,
)
from atriva_ray.errors import ExtraNotInstalledError, InputFileError

if TYPE_CHECKING:
    from atriva_ray.serve.launch import Serving
    from atriva_ray.serve.settings import ServeSettings

__all__ = ["serve", "token"]

_out = Console()
_err = Console(stderr=True)

_EXIT_FAILED = 1
_LAST_PORT = 65_535


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]MODEL…", help="Model files or SavedModel folders, named by their files."
        ),
    ] = None,
    *,
    repository: Annotated[
        str | None,
        typer.Option(
            "--repository",
            "-r",
            help="Folder or URL of models: NAME/VERSION/model.xml, .onnx, …; with model.yaml, or "
            "laid out for Triton or OpenVINO Model Server.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback need tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=_LAST_PORT, help="For HTTP; 0 for none.")] = 8000,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=_LAST_PORT, help="For gRPC; 0 for none.")
    ] = 8001,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            "-d",
            help="Of the models named: AUTO, CPU, GPU, node/CPU, … [default: AUTO]",
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="openvino, onnxruntime or tensorrt. [default: openvino]")
    ] = None,
    replicas: Annotated[
        str | None,
        typer.Option(help="A number; 1-4: as load needs; auto: one per device. [default: auto]"),
    ] = None,
    idle: Annotated[
        float | None,
        typer.Option(help="Seconds without a request until a model is unloaded. [default: never]"),
    ] = None,
    hint: Annotated[
        str | None,
        typer.Option(help="latency, throughput or adaptive (both, by load). [default: adaptive]"),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Text file with one class name per line.")
    ] = None,
    ingresses: Annotated[
        int, typer.Option(min=1, help="Processes that talk to clients and share the ports.")
    ] = 2,
    tokens: Annotated[
        Path | None, typer.Option(help="File of hashes of tokens; `atriva token` makes them.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody in who reaches the address.")
    ] = False,
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-cert", help="PEM file, for TLS on both ports.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="PEM file.")] = None,
    watch: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Look at the repository that often for changes."),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Of this server; each on a cluster has one of its own.")
    ] = "atriva",
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="Whether clients may load and unload.")
    ] = True,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster to use. Default: RAY_ADDRESS, else one that runs on this machine, "
            "else an embedded one."
        ),
    ] = None,
    preprocess: Preprocess = None,
    resize: Resize = None,
    layout: Layout = None,
    mean: Mean = None,
    scale: Scale = None,
    color: Color = None,
    fit: Fit = None,
) -> None:
    """Serve models to every client of the Open Inference Protocol (KServe v2, Triton).

    Serves until it is stopped by Ctrl-C or SIGTERM.
    """
    if not models and repository is None:
        raise typer.BadParameter("name model files, or a folder of models with --repository")
    if (tls_certificate is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key need each other")
    if port == grpc_port:
        raise typer.BadParameter(f"--port and --grpc-port are both {port}: name two, or one and 0")
    preprocessing = read_preprocessing(
        preprocess, resize=resize, layout=layout, mean=mean, scale=scale, color=color, fit=fit
    )
    told = {
        "device": device,
        "backend": backend,
        "hint": hint,
        "replicas": int(replicas) if replicas is not None and replicas.isdigit() else replicas,
        "idle_s": idle,
        "labels": None if labels is None else read_labels(labels),
        "preprocessing": preprocessing,
    }
    quiet_ray()
    settings = _settings(
        models=tuple(map(_model_from_here, models or ())),
        repository=None if repository is None else _from_here(repository),
        model={name: value for name, value in told.items() if value is not None},
        host=host,
        http_port=port or None,
        grpc_port=grpc_port or None,
        ingresses=ingresses,
        tokens=None if tokens is None else tokens.resolve(),
        insecure=insecure,
        tls_certificate=None if tls_certificate is None else tls_certificate.resolve(),
        tls_key=None if tls_key is None else tls_key.resolve(),
        watch_s=watch,
        is_controllable=control,
    )
    import ray  # noqa: PLC0415 - keeps --help fast

    from atriva_ray.serve.launch import serving  # noqa: PLC0415 - keeps --help fast

    server = serving(settings, name=name, address=address, shows_logs=shows_notices())
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as ending, ExitStack() as stack:
            stack.callback(ray.shutdown)  # what Ray still has to say, it says before this is done
            with _err.status("starting"), hushed():
                running = stack.enter_context(server)
            stack.callback(ending.enter_context, hushed())  # first of all, and until all is done
            signal.signal(signal.SIGTERM, _interrupt)  # Ray has put its own handler in front
            if not any(each.state == "READY" for each in running.models) and not repository:
                _show_failures(running)
                raise typer.Exit(_EXIT_FAILED)
            _show(running)
            signal.pause()
    except KeyboardInterrupt:
        _err.print("stopped")


def token(
    name: Annotated[str, typer.Argument(help="Whose token it is; shown in logs.")] = "",
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Add its hash to this file.")
    ] = None,
) -> None:
    """Make a token for clients, and the hash of it for the server.

    The token itself is shown once and kept nowhere.
    """
    from atriva_ray.serve.tokens import new_token  # noqa: PLC0415 - keeps --help fast

    secret, line = new_token(name)
    if file is None:
        _err.print(f"for the server's file of tokens: {escape(line)}", soft_wrap=True)
    else:
        _append(file, line)
        _err.print(f"its hash was added to {escape(str(file))}", soft_wrap=True)
    typer.echo(secret)


def _append(file: Path, line: str) -> None:
    try:
        file.touch(mode=0o600)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(f"{line}\n")
    except OSError as error:
        raise InputFileError(str(file), f"it cannot be written: {error}") from error


def _settings(**given: Any) -> ServeSettings:
    """Check the options together.

    Raises:
        OptionError: they cannot be used.
        ExtraNotInstalledError: a library is missing.
    """
    try:
        from pydantic import ValidationError  # noqa: PLC0415 - of an extra

        from atriva_ray.serve.settings import ServeSettings  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise ExtraNotInstalledError("servers", str(error.name), "serve") from error
    try:
        return ServeSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"]) or "serve"
        value = "" if first["loc"] == () else str(first["input"])
        expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        raise OptionError(option, value, expected) from None


def _model_from_here(argument: str) -> str:
    name, equals, path = argument.partition("=")
    # As the catalog takes it: a path may have an equals sign in it.
    if not equals or "/" in name or Path(argument).expanduser().exists():
        return _from_here(argument)
    return f"{name}={_from_here(path)}"


def _from_here(location: str) -> str:
    """Return a path that means the same in every folder: processes of the cluster have others."""
    if not location or "://" in location:
        return location
    return str(Path(location).expanduser().absolute())


def _show(running: Serving) -> None:
    table = Table("model", "version", "state", "")
    for each in running.models:
        table.add_row(escape(each.name), each.version, each.state.lower(), escape(each.reason))
    _out.print(table)
    if running.http_url:
        _out.print(f"HTTP  {running.http_url}  (a page to try models, and /docs)", soft_wrap=True)
    if running.grpc_address:
        _out.print(f"gRPC  {running.grpc_address}", soft_wrap=True)
    _out.print(f"Ray   {running.cluster}; Ctrl-C stops", soft_wrap=True)


def _show_failures(running: Serving) -> None:
    for each in running.models:
        line = (
            f"[red]error[/red] model {escape(each.name)}: {escape(' '.join(each.reason.split()))}"
        )
        _err.print(line, soft_wrap=True, highlight=False)


def _interrupt(*_signal: object) -> NoReturn:
    signal.alarm(0)  # Ray's own handler ends the program 3 s later, whatever it is doing
    raise KeyboardInterrupt
