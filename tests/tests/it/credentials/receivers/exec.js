// An API that takes tokens of a program: exec.js ADDRESS CERT KEY SECRET
// A token is NAME.END.MAC, and the MAC (HMAC-SHA256, hex) is over NAME.END. Answers 200 with the name, 401 with what is wrong; each
// request is a line in requests.log.
const [address, cert, key, secret] = process.argv.slice(2);
const crypto = require("crypto"), fs = require("fs"), http2 = require("http2");

function check(authorization) {
  const match = /^Bearer ([\w-]+)\.(\d+)\.([0-9a-f]{64})$/.exec(authorization || "");
  if (!match) return { error: "no token" };
  const [, name, end, mac] = match;
  const right = crypto.createHmac("sha256", secret).update(`${name}.${end}`).digest();
  if (!crypto.timingSafeEqual(right, Buffer.from(mac, "hex"))) return { error: "a wrong signature" };
  if (Date.now() / 1000 >= Number(end) + 1) return { error: "it has ended" };
  return { name };
}

const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key), allowHTTP1: true };
http2.createSecureServer(options, (request, response) => {
  const answer = check(request.headers.authorization), status = answer.name ? 200 : 401;
  fs.appendFileSync("requests.log", JSON.stringify({ status, answer, authorization: request.headers.authorization }) + "\n");
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(answer));
}).listen(443, address);
