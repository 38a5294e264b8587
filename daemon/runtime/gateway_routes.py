"""Routes that the daemon tells its gateways: the version that each target's agents get.

`daemon.api.gateways` sends it, `daemon.gateway.route_updates` reads it. Addresses and keys of replicas stay
in each one's own settings.
"""

from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field

from extractors.values import content_id

ROUTES_PATH = "/v1/gateway/routes"
"""The daemon's route for gateways."""


class TargetRoute(BaseModel):
    """The version that one target's agents get."""

    # A newer daemon may tell more than this gateway understands.
    model_config = ConfigDict(frozen=True, extra="ignore")

    version: str | None = Field(min_length=1, pattern=r"^[!-~]+$")
    """The active version; null while the base model serves. Visible ASCII: it stands in a header."""


class GatewayRoutes(BaseModel):
    """The routes of all targets."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    routes: dict[str, TargetRoute]
    """By target, `tenant/agent`."""

    @cached_property
    def tag(self) -> str:
        """Return a digest of the content."""
        return content_id(self.model_dump(mode="json"))
