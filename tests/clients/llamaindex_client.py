"""LlamaIndex's class for servers that are like OpenAI."""

from common import BASE, CALL, KEY, MODEL, SAY, say
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"22 degrees in {city}"


model = OpenAILike(
    model=MODEL, api_key=KEY, api_base=BASE, is_chat_model=True, is_function_calling_model=True, max_retries=0)
tools = [FunctionTool.from_defaults(get_weather)]
deltas = [piece.delta for piece in model.stream_chat([ChatMessage(SAY)])]
ask = ChatMessage(CALL)


def use(answer):
    call = model.get_tool_calls_from_response(answer)[0]
    result = ChatMessage(
        get_weather(**call.tool_kwargs), role="tool", additional_kwargs={"tool_call_id": call.tool_id})
    after = model.chat_with_tools(tools, chat_history=[ask, answer.message, result])
    return call.tool_name, call.tool_kwargs, after.message.content


whole = model.chat([ChatMessage(SAY)])
*_, last = model.stream_chat_with_tools(tools, user_msg=ask)
say(
    text=whole.message.content, streamed="".join(deltas), pieces=len(deltas) > 1,
    usage=whole.raw.usage.completion_tokens,
    called=use(model.chat_with_tools(tools, user_msg=ask)), called_streamed=use(last),
)
