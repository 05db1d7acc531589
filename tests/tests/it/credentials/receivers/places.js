// An API that wants its key in one place: places.js ADDRESS CERT KEY SECRET
// The first part of the path says where it looks; it answers 401 when the key is not there, or when the request has "stolen" anywhere.
// Each request is a line in requests.log.
const [address, cert, key, secret] = process.argv.slice(2);
const fs = require("fs"), http2 = require("http2"), zlib = require("zlib");

const places = {
  basic: (request) => request.headers.authorization === "Basic " + Buffer.from("me:" + secret).toString("base64"),
  query: (request, url) => url.searchParams.getAll("key").join() === secret,
  cookie: (request) => (request.headers.cookie ?? "").split("; ").filter((it) => it.startsWith("sid=")).join() === "sid=" + secret,
  path: (request, url) => decodeURIComponent(url.pathname.split("/")[2]) === "bot" + secret,
  header: (request) => request.headers["x-key"] === secret,
  body: (request, url, body) => (request.headers["content-type"].includes("json") ? JSON.parse(body).key : new URLSearchParams(body).get("key")) === secret,
};
const pack = { gzip: zlib.gzipSync, deflate: zlib.deflateSync, br: zlib.brotliCompressSync };
const server = http2.createSecureServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key), allowHTTP1: true });
server.on("request", (request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks).toString(), url = new URL(request.url, "https://raw.test");
    const { authorization, cookie } = request.headers;
    const seen = { path: request.url, authorization, cookie, body, version: request.httpVersion };
    fs.appendFileSync("requests.log", JSON.stringify(seen) + "\n");
    if (url.pathname === "/echo") {
      // Sends back what it got, in pieces that end anywhere.
      const text = `you sent ${request.headers["x-key"]} and I keep it, ${request.headers["accept-encoding"] ?? "anyhow"}\n`;
      const codings = url.searchParams.get("codings")?.split(",") ?? [];
      const bytes = codings.reduce((bytes, coding) => pack[coding](bytes), Buffer.from(text.repeat(3)));
      const head = { "content-type": url.searchParams.get("type") ?? "text/plain", "x-got": request.headers["x-key"] };
      if (codings.length) Object.assign(head, { "content-encoding": codings.join(", "), "content-length": bytes.length, etag: '"a"' });
      response.writeHead(url.searchParams.get("status") ?? 200, head);
      const step = Number(url.searchParams.get("step"));
      const next = (at) => (at >= bytes.length ? response.end() : response.write(bytes.subarray(at, at + step), () => next(at + step)));
      return next(0);
    }
    const place = places[url.pathname.split("/")[1]];
    const good = place(request, url, body) && !JSON.stringify(seen).includes("stolen");
    response.writeHead(good ? 200 : 401, { "content-type": "text/plain" });
    response.end(good ? "welcome\n" : "who are you?\n");
  });
});
server.listen(443, address);
