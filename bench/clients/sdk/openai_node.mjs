// openai-node, driven for one case: node openai_node.mjs CASE URL FOLDER, FOLDER being where it is installed. Prints one line of JSON.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [name, url, folder] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${folder}/`));
const { default: OpenAI } = await import(pathToFileURL(require.resolve("openai")));

const told = { text: "", error: "", calls: [] };
const weather = { type: "function", function: { name: "get_weather", parameters: { type: "object", properties: {} } } };
try {
  const client = new OpenAI({ baseURL: url, apiKey: "x" });
  const stream = await client.chat.completions.create({
    model: name,
    stream: true,
    stream_options: { include_usage: true },
    messages: [{ role: "user", content: "Tell me about the river." }],
    ...(name === "tools" ? { tools: [weather] } : {}),
  });
  for await (const chunk of stream) {
    for (const { delta } of chunk.choices) {
      told.text += delta.content ?? "";
      for (const call of delta.tool_calls ?? []) {
        const parts = (told.calls[call.index] ??= ["", ""]);
        parts[0] += call.function?.name ?? "";
        parts[1] += call.function?.arguments ?? "";
      }
    }
    if (name === "disconnect" && told.text.length > 200) {
      told.left_ns = Number(process.hrtime.bigint());
      stream.controller.abort();
      break;
    }
  }
} catch (error) {
  told.error = `${error.constructor.name} ${error.code}: ${error.message}`;
}
console.log(JSON.stringify(told));
process.stdin.resume(); // stays until the runner has seen the close, which must not be this process's end
process.stdin.on("end", () => process.exit(0));
