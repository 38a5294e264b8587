"""Traces that public tracers wrote of one scripted agent, and what that agent really said.

`make corpus` runs the agent of `agents/` under each tracer against a stand-in for the model's provider. A
recording of `recordings/` is what the tracer exported; the truth beside it is what the stand-in was asked and
answered. `test_corpus.py` reads each recorded span and compares.

    script.py          the conversations, and what the stand-in answers in each situation
    said.py            a call of the model in neutral words
    stand_in.py        the stand-in for the provider; protocols/ has the protocols that it speaks
    agents/            the agent, once for each SDK; each file names the tracers that are recorded with it
    record.py          builds the environments and records
    constraints.txt    the versions that are installed for that
    replay.py          a recording as the spans that Phoenix would hold, beside the truth
    expected.toml      which situation is read from which tracer, and why another is refused
"""
