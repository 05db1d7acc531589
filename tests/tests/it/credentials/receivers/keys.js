// An API that takes the keys that stand in keys.json at the moment at which it answers: keys.js ADDRESS CERT KEY
// /slow/… is answered after a second. Each request is a line in requests.log.
const [address, cert, key] = process.argv.slice(2);
const fs = require("fs"), http2 = require("http2");

const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key), allowHTTP1: true };
http2.createSecureServer(options, (request, response) => {
  request.resume();
  request.on("end", () => setTimeout(() => {
    const given = request.headers["x-key"], keys = JSON.parse(fs.readFileSync("keys.json"));
    const status = keys.includes(given) ? 200 : 401;
    fs.appendFileSync("requests.log", JSON.stringify({ path: request.url, status, given }) + "\n");
    response.writeHead(status, { "content-type": "text/plain" });
    response.end(status === 200 ? "welcome" : "who are you?");
  }, request.url.startsWith("/slow/") ? 1000 : 0));
}).listen(443, address);
