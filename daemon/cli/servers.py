"""`learnd run` and `learnd gateway`: the processes that stay."""

import typer

from daemon.cli.options import DEFAULT_CONFIG, Config
from daemon.runtime.clock import utc_now
from daemon.runtime.data_dir import prepare_data_dir, share_adapters
from daemon.runtime.logs import configure_logging
from daemon.runtime.optional_deps import require_extra
from daemon.settings.load import load_settings
from registry.store.store import Store

app = typer.Typer()


@app.command()
def run(config: Config = DEFAULT_CONFIG) -> None:
    """Run the daemon: poll, train, promote and reconcile until it is stopped."""
    require_extra("train", "torch", "trl", "peft")
    from daemon.service import serve

    settings = load_settings(config)
    configure_logging(settings.daemon.log_format)
    prepare_data_dir(settings)
    with Store.open(settings.data_dir, utc_now()) as store:
        share_adapters(settings.data_dir, store)
    serve(settings)


@app.command()
def gateway(config: Config = DEFAULT_CONFIG) -> None:
    """Run the OpenAI-compatible gateway that agents talk to."""
    from daemon.gateway.run import serve

    settings = load_settings(config)
    configure_logging(settings.daemon.log_format)
    serve(settings)
