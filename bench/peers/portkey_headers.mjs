// Loaded before Portkey (node --import). Its release from npm adds headers to the very answer that fetch gave it, whose headers nobody may
// change under the version of its HTTP server that npm installs with it: every request ends with status 500. Here fetch's answers get
// headers of their own, once per request; the body is handed on as it is.
const fetchAsItIs = globalThis.fetch
globalThis.fetch = async (...request) => {
  const { body, status, statusText, headers } = await fetchAsItIs(...request)
  return new Response(body, { status, statusText, headers: new Headers(headers) })
}
