// An API that knows callers by their certificates: mtls.js ADDRESS CERT KEY CA [http1] [unasked]
// CA signs the callers; "unasked" demands no certificate. Answers with whom it saw; each request is a line in requests.log.
const [address, cert, key, ca, ...how] = process.argv.slice(2);
const fs = require("fs"), http2 = require("http2"), https = require("https");

const demanded = !how.includes("unasked");
const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key), ca: fs.readFileSync(ca), allowHTTP1: true };
const create = how.includes("http1") ? https.createServer : http2.createSecureServer;
const server = create({ ...options, requestCert: demanded, rejectUnauthorized: demanded });
let connections = 0;
server.on("secureConnection", (socket) => {
  const certificate = socket.getPeerCertificate();
  socket.seen = { name: certificate.subject?.CN, serial: certificate.serialNumber, connection: ++connections, resumed: socket.isSessionReused() };
});
const note = (request, socket) => {
  const seen = { ...socket.seen, path: request.url, version: request.httpVersion, authorization: request.headers.authorization };
  fs.appendFileSync("requests.log", JSON.stringify(seen) + "\n");
  return seen;
};
server.on("request", (request, response) => {
  const seen = note(request, request.stream?.session ? request.stream.session.socket : request.socket);
  response.writeHead(200, { "content-type": "application/json" });
  // Long enough that calls overlap.
  setTimeout(() => response.end(JSON.stringify(seen)), 20);
});
server.on("upgrade", (request, socket) => {
  const seen = note(request, socket);
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n${seen.name}\n`);
  socket.on("data", (data) => socket.write(data.toString().toUpperCase()));
});
server.listen(443, address);
