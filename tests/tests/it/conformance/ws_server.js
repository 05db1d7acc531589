// A WebSocket that says what it is told: ws_server.js ADDRESS CERT KEY. How each ended is a line.
const [address, cert, key] = process.argv.slice(2);
const fs = require("fs"), https = require("https"), { WebSocketServer } = require("ws");

const web = https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) });
const server = new WebSocketServer({
  server: web, maxPayload: 0, perMessageDeflate: true,
  handleProtocols: (offered) => (offered.has("two") ? "two" : false),
});
server.on("connection", (socket, request) => {
  if (request.headers.authorization !== "Bearer canary_7f3a9d51e8b24c06_live") return socket.close(4401, "no key");
  socket.on("message", (data, isBinary) => {
    const text = isBinary ? undefined : data.toString();
    if (text === "ping me") {
      socket.once("pong", () => socket.send("you are"));
      socket.ping("are you there");
    } else if (text?.startsWith("close ")) {
      const [, code, ...reason] = text.split(" ");
      socket.close(Number(code), reason.join(" "));
    } else if (text === "in parts") {
      socket.send("one ", { fin: false });
      socket.send("two ", { fin: false });
      socket.send("three", { fin: true });
    } else {
      socket.send(data, { binary: isBinary });
    }
  });
  socket.on("error", () => {});
  socket.on("close", (code, reason) => console.log("ended", code, reason.toString()));
});
web.listen(443, address);
