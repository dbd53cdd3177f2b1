// The same in bare Node, and a pass-through of streams beside it: what another runtime takes for the same bytes.
import http from "node:http";

const { GROQ_API_KEY, GROQ_BASE_URL, PORT } = process.env;
const SYSTEM = "You turn rough prompts into good ones. Return the improved prompt only.";
const agent = new http.Agent({ keepAlive: true });

const ask = (body, use) => {
  const headers = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body),
    Authorization: `Bearer ${GROQ_API_KEY}` };
  http.request(`${GROQ_BASE_URL}/openai/v1/chat/completions`, { method: "POST", agent, headers }, use).end(body);
};

const read = (stream, use) => {
  const parts = [];
  stream.on("data", (part) => parts.push(part)).on("end", () => use(Buffer.concat(parts)));
};

const server = http.createServer((request, response) => read(request, (body) => {
  if (request.url !== "/enhance") {
    return ask(body, (answer) => {
      response.writeHead(answer.statusCode, { "Content-Type": answer.headers["content-type"] });
      answer.pipe(response);
    });
  }
  const messages = [{ role: "system", content: SYSTEM }, { role: "user", content: JSON.parse(body).prompt }];
  const asked = { model: "openai/gpt-oss-20b", messages, max_completion_tokens: 400 };
  ask(JSON.stringify(asked), (answer) => read(answer, (told) => {
    const enhancedPrompt = JSON.parse(told).choices[0].message.content.trim();
    const body = JSON.stringify({ enhancedPrompt });
    response.writeHead(answer.statusCode, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) });
    response.end(body);
  }));
}));
server.keepAliveTimeout = 100_000;
server.listen(Number(PORT), "127.0.0.1");
