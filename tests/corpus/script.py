"""The conversations of the scripted agent, and the answers of the model that it talks to.

The agent answers for a harbour office. Its first conversation has five turns: a question; one for which it
calls two tools at once; one that is answered as a stream; one at which the provider fails, so that the agent
asks again; and one with an image. Each conversation after it has one situation more.
"""

from typing import Any

from tests.corpus.said import SaidAnswer, SaidCall

MODEL = "harbour-large"
SYSTEM = 'You answer for the harbour office of Örnvik.\nBe brief, and never say "maybe".'

PLAIN = "Which VHF channel do you listen on?"
CALLS = "When is high water on 3 May, and what does a 12 m berth cost for two nights?"
STREAMED = "Is there fuel on the quay? Answer with a list:\n- diesel\n- petrol"
FAILED = "Until when is the office open?"
PICTURED = "Is this our flag?"
CUT_OFF = "Tell me everything about mooring."
CALLS_STREAMED = "And what is a 9 m berth for one night?"
THOUGHT = "May I swim in the basin?"
SEVERAL = "Greet me."
REFERENCED = "And in winter?"

TIDES = {"port": "Örnvik", "date": "2031-05-03"}
PRICE = {"metres": 12, "nights": 2}
SMALL_PRICE = {"metres": 9, "nights": 1}

IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPj/HwADAgH/p9oZ1gAAAABJRU5ErkJggg=="
"""A PNG of one pixel, in base64."""

ANSWERS: dict[str, tuple[SaidAnswer, ...]] = {
    "plain": (SaidAnswer("Channel 12, day and night. “Örnvik Port” is the call sign."),),
    "parallel calls": (
        SaidAnswer(
            calls=(
                SaidCall("tide_table", TIDES, id="call_tides7"),
                SaidCall("berth_price", PRICE, id="call_price7"),
            )
        ),
    ),
    "tool results": (SaidAnswer("High water is at 04:12 and 16:40. Two nights at 12 m cost 84 €."),),
    "streamed": (
        SaidAnswer(
            "Yes:\n- diesel, every day from 07:00 to 19:00, at the outer quay\n"
            "- petrol, on request: call us an hour before you need it"
        ),
    ),
    "error": (SaidAnswer(error=400),),
    "retry": (SaidAnswer("Until 18:00; in July until 21:00."),),
    "image": (SaidAnswer("No, ours is blue and white."),),
    "cut off": (SaidAnswer("Mooring begins with the lines: two at the bow, two at", cut_off=True),),
    "streamed calls": (
        SaidAnswer("Let me look that up.", calls=(SaidCall("berth_price", SMALL_PRICE, id="call_small3"),)),
    ),
    "streamed results": (
        SaidAnswer(
            "One night at 9 m costs 31.50 €, water and electricity included. Pay at the office or by card."
        ),
    ),
    "thoughts": (
        SaidAnswer("No: ships turn there.", thoughts="The basin has traffic. Rule 4 forbids swimming."),
    ),
    "several answers": (SaidAnswer("Ahoy!"), SaidAnswer("Welcome to Örnvik!")),
    "before reference": (
        SaidAnswer("Until 18:00 on weekdays and Saturdays, until 21:00 in July, and not at all on holidays."),
    ),
    "referenced history": (SaidAnswer("In winter from 09:00."),),
}
"""What the stand-in answers in each situation; alternatives where it is asked for several."""


CUT_OFF_TOKENS = ANSWERS["cut off"][0].count_tokens()


def tide_table(port: str, date: str) -> str:
    """Give the times of high water.

    Args:
        port: Name of the port.
        date: Day, as YYYY-MM-DD.
    """
    return f'{{"port": "{port}", "date": "{date}", "high": ["04:12", "16:40"]}}'


def berth_price(metres: int, nights: int) -> str:
    """Give the price of a berth in euros.

    Args:
        metres: Length of the boat.
        nights: Number of nights.
    """
    return f"{metres * nights * 3.5:.2f} EUR"


FUNCTIONS = {"tide_table": tide_table, "berth_price": berth_price}

PARAMETERS: dict[str, dict[str, Any]] = {
    "tide_table": {
        "type": "object",
        "properties": {
            "port": {"type": "string", "description": "Name of the port."},
            "date": {"type": "string", "description": "Day, as YYYY-MM-DD."},
        },
        "required": ["port", "date"],
    },
    "berth_price": {
        "type": "object",
        "properties": {"metres": {"type": "integer"}, "nights": {"type": "integer"}},
        "required": ["metres", "nights"],
    },
}
"""Arguments of each tool as a JSON schema, for SDKs that do not derive it from the function."""

DESCRIPTIONS = {
    "tide_table": "Give the times of high water.",
    "berth_price": "Give the price of a berth in euros.",
}
