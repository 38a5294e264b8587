"""The errors of learnd's client.

LearndClientError
├── DaemonUnreachable   no answer, and none is kept from before
├── RequestRefused      unknown target, or a wrong token
├── NoSuchExperiment    no run of that name, or several
├── NoReplicaAnswers    no model server answers
├── NoActiveAdapter     the base model serves, so there are no files
└── BrokenAdapter       files that are damaged, or do not fit the model
"""


class LearndClientError(Exception):
    """Root of the client's errors."""


class DaemonUnreachable(LearndClientError):
    """The daemon does not answer, and no earlier answer is kept."""


class RequestRefused(LearndClientError):
    """The daemon knows no such target, or the token is not its tenant's."""


class NoSuchExperiment(LearndClientError):
    """No run has this name, or several have."""


class NoReplicaAnswers(LearndClientError):
    """No replica answers, or none serves the active version."""


class NoActiveAdapter(LearndClientError):
    """The base model serves the target: there are no files to fetch."""


class BrokenAdapter(LearndClientError):
    """The adapter's files are not what the manifest says, or do not fit the model."""
