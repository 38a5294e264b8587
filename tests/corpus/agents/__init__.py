"""The scripted agent, once for each SDK. Each module runs in an environment of `.venv-corpus`."""
