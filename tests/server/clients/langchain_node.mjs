// @langchain/openai of npm.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { OpenAIEmbeddings } = require("@langchain/openai");
const asked = JSON.parse(readFileSync(0, "utf8"));

function client(model) {
  return new OpenAIEmbeddings({ model, apiKey: "none", configuration: { baseURL: asked.url + "/v1" } });
}

const plain = await client(asked.model).embedDocuments(asked.texts);
const query = client(asked.model + ":query");
const suffix = [];
for (const text of asked.texts) suffix.push(await query.embedQuery(text));
console.log(JSON.stringify({ plain, suffix }));
