// The Vercel AI SDK, driven for one case: node vercel_ai_sdk.mjs CASE URL FOLDER, FOLDER being where it is installed. Prints one line of JSON.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [name, url, folder] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${folder}/`));
const found = (module) => import(pathToFileURL(require.resolve(module)));
const { streamText, tool, jsonSchema } = await found("ai");
const { createOpenAICompatible } = await found("@ai-sdk/openai-compatible");

const told = { text: "", error: "", calls: [] };
const provider = createOpenAICompatible({ name: "evenflow", baseURL: url, apiKey: "x", includeUsage: true });
const abort = new AbortController();
const result = streamText({
  model: provider(name),
  prompt: "Tell me about the river.",
  abortSignal: abort.signal,
  ...(name === "tools" ? { tools: { get_weather: tool({ inputSchema: jsonSchema({ type: "object", properties: {} }) }) } } : {}),
  onError: () => {}, // told as a part of the stream as well
});
try {
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") told.text += part.text;
    if (part.type === "tool-call") told.calls.push([part.toolName, JSON.stringify(part.input)]);
    if (part.type === "error") told.error = `${part.error?.name}: ${part.error?.message} ${JSON.stringify(part.error?.data ?? null)}`;
    if (name === "disconnect" && told.text.length > 200 && !abort.signal.aborted) {
      told.left_ns = Number(process.hrtime.bigint());
      abort.abort();
    }
  }
} catch (error) {
  told.error = `${error.name}: ${error.message}`;
}
console.log(JSON.stringify(told));
process.stdin.resume(); // stays until the runner has seen the close, which must not be this process's end
process.stdin.on("end", () => process.exit(0));
