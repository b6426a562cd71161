// The openai package of npm; it asks for base64 where nothing is said.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { default: OpenAI } = require("openai");
const asked = JSON.parse(readFileSync(0, "utf8"));
const client = new OpenAI({ baseURL: asked.url + "/v1", apiKey: "none", maxRetries: 0 });

async function embed(options) {
  const answer = await client.embeddings.create({ model: asked.model, input: asked.texts, ...options });
  return answer.data.map((entry) => entry.embedding);
}

const told = {
  plain: await embed({}),
  floats: await embed({ encoding_format: "float" }),
  query: await embed({ input_type: "query" }),
  models: (await client.models.list()).data.map((model) => model.id),
  refused: {},
};
try {
  await embed({ model: "text-embedding-3-small" });
} catch (error) {
  told.refused.model = [error.status, error.message];
}
console.log(JSON.stringify(told));
