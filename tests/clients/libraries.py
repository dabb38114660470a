"""What LangChain and LiteLLM get of a door: `python libraries.py URL`, in an environment of their own. Prints JSON."""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks for prices in the network first


def langchain(url: str) -> dict[str, object]:
    from langchain_openai import ChatOpenAI, OpenAI

    chat = ChatOpenAI(model="tiny", base_url=url, api_key="x", temperature=0, max_retries=0)
    answer = chat.invoke("say:hello world")
    return {
        "chat": answer.content,
        "usage": answer.usage_metadata["output_tokens"],
        "reason": answer.response_metadata["finish_reason"],
        "stream": "".join(part.content for part in chat.stream("say:in parts")),
        "completion": OpenAI(model="tiny", base_url=url, api_key="x", max_retries=0).invoke("say:completed"),
    }


def litellm(url: str) -> dict[str, object]:
    import litellm as library

    given = {"model": "openai/tiny", "api_base": url, "api_key": "x"}

    def messages(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"say:{text}"}]

    answer = library.completion(messages=messages("hello world"), **given)
    parts = library.completion(messages=messages("in parts"), stream=True, **given)
    try:
        library.completion(messages=messages("x" * 1000), **given)
        refused = ""
    except library.ContextWindowExceededError:
        refused = "ContextWindowExceededError"
    except library.BadRequestError as error:
        refused = f"BadRequestError {error.status_code}"
    return {
        "chat": answer.choices[0].message.content,
        "usage": answer.usage.completion_tokens,
        "reason": answer.choices[0].finish_reason,
        "stream": "".join(part.choices[0].delta.content or "" for part in parts),
        "refused": refused,
    }


if __name__ == "__main__":
    print(json.dumps({"langchain": langchain(sys.argv[1]), "litellm": litellm(sys.argv[1])}))
