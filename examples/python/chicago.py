"""Asks one question in the region Chicago and prints prompt, answer and token counts.

    pip install openai
    HONSHU_CHICAGO_API_KEY=sk-… python chicago.py

Only `api_key` and `base_url` differ from a program for any other OpenAI-compatible service.
"""

import os

from openai import OpenAI

client = OpenAI(
    api_key=os.environ["HONSHU_CHICAGO_API_KEY"],
    base_url=os.environ.get("HONSHU_CHICAGO_BASE_URL", "http://127.0.0.1:8082/20231130/actions/v1/"),
)

prompt = "日本列島で最も大きな島の名前は?"

response = client.responses.create(
    model="xai.grok-4-1-fast-reasoning",
    input=prompt,
)

# The answer's text is in the first item that is a message.
text = None
for item in response.output:
    if item.type == "message":
        text = item.content[0].text
        break
if text is None:
    # Without a message, the first item has to do.
    text = response.output[0].content[0].text

print("【プロンプト】")
print(prompt)
print("\n【応答テキスト】")
print(text)
print("\n【トークン数】")
print(f"入力トークン: {response.usage.input_tokens}")
print(f"出力トークン: {response.usage.output_tokens}")
print(f"合計トークン: {response.usage.total_tokens}")
