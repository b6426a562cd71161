// The ollama package of npm.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { Ollama } = require("ollama");
const asked = JSON.parse(readFileSync(0, "utf8"));
const client = new Ollama({ host: asked.url });
const embed = async (model) => (await client.embed({ model, input: asked.texts })).embeddings;

const told = {
  plain: await embed(asked.model),
  suffix: await embed(asked.model + ":query"),
  models: (await client.list()).models.map((model) => model.model),
  refused: {},
};
try {
  await embed("nomic-embed-text");
} catch (error) {
  told.refused.model = [error.status_code, error.error];
}
console.log(JSON.stringify(told));
