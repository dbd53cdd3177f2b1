"use strict";

/** Call the backend as the real extension does; say what its user would see, and what the worker could read. */
async function enhance(backend, prompt) {
  const response = await fetch(`${backend}/enhance`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ prompt }),
  });
  const told = { status: response.status, retryAfter: response.headers.get("Retry-After"), sees: "Error" };
  if (response.status === 402 || response.status === 403) return { ...told, sees: "Limit reached" };
  if (!response.ok) return told;
  return { ...told, sees: (await response.json()).enhancedPrompt || "" };
}

async function health(backend) {
  return (await fetch(`${backend}/health`)).json();
}
