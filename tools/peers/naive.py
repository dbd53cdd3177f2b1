"""The naive backend: one key, no pool, no guard. What Flask, requests and gunicorn cost by themselves."""

import os

import requests
from flask import Flask, Response, jsonify, request

SYSTEM = "You turn rough prompts into good ones. Return the improved prompt only."

app = Flask(__name__)
groq = requests.Session()
groq.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))  # ten are kept otherwise, of sixteen
groq.headers["Authorization"] = f"Bearer {os.environ['GROQ_API_KEY']}"


@app.post("/enhance")
def enhance() -> Response:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": request.get_json()["prompt"]}]
    asked = {"model": "openai/gpt-oss-20b", "messages": messages, "max_completion_tokens": 400}
    answer = groq.post(f"{os.environ['GROQ_BASE_URL']}/openai/v1/chat/completions", json=asked, timeout=25)
    answer.raise_for_status()
    return jsonify(enhancedPrompt=answer.json()["choices"][0]["message"]["content"].strip())
