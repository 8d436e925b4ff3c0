"""LangChain's class for OpenAI, by Chat Completions and by Responses."""

import sys

from common import BASE, CALL, KEY, MODEL, SAY, say
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"22 degrees in {city}"


model = ChatOpenAI(model=MODEL, api_key=KEY, base_url=BASE, max_retries=0, use_responses_api=sys.argv[1] == "responses")
whole = model.invoke(SAY)
pieces = list(model.stream(SAY))
streamed = pieces[0]
for piece in pieces[1:]:
    streamed += piece
bound = model.bind_tools([get_weather])
ask = HumanMessage(CALL)


def use(turn):
    call = turn.tool_calls[0]
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    return call["name"], call["args"], bound.invoke([ask, turn, result]).text


gathered = None
for piece in bound.stream([ask]):
    gathered = piece if gathered is None else gathered + piece
say(
    text=whole.text, streamed=streamed.text, pieces=len(pieces) > 1, usage=whole.usage_metadata["output_tokens"],
    called=use(bound.invoke([ask])), called_streamed=use(gathered),
)
