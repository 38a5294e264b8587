"""What can go wrong between an agent and learnd."""


class LearndClientError(Exception):
    """Root of the client's errors."""


class DaemonUnreachable(LearndClientError):
    """The daemon does not answer, and nothing is known from before."""


class RequestRefused(LearndClientError):
    """The daemon knows no such target, or the token is not its tenant's."""


class NoSuchExperiment(LearndClientError):
    """No run is named so, or several are."""


class NoReplicaAnswers(LearndClientError):
    """No replica answers, or none serves the active version."""


class NoActiveAdapter(LearndClientError):
    """The base model serves the target: there are no files to fetch."""


class BrokenAdapter(LearndClientError):
    """The adapter's files are not what the manifest says, or do not fit the model."""
