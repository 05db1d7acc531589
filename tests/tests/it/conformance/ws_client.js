// A bot that speaks over WebSockets: a line for each thing.
const fs = require("fs"), crypto = require("crypto"), WebSocket = require("ws");

const ca = fs.readFileSync(process.env.SSL_CERT_FILE);
const dial = (more, protocols = []) =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket("wss://raw.test/v1/socket", protocols, { ca, maxPayload: 0, perMessageDeflate: false, ...more });
    socket.on("open", () => resolve(socket));
    socket.on("error", reject);
  });
const next = (socket) => new Promise((resolve) => socket.once("message", (data, isBinary) => resolve(isBinary ? data : data.toString())));
const ended = (socket) => new Promise((resolve) => socket.once("close", (code, reason) => resolve([code, reason.toString()])));
const names = (socket) => (socket.extensions.includes("permessage-deflate") ? "['PerMessageDeflate']" : "[]");

(async () => {
  let socket = await dial();
  console.log("extensions", names(socket), socket.protocol || "None");
  for (const size of [0, 1, 125, 126, 127, 65535, 65536, 16 << 20]) {
    const text = "x".repeat(size), data = crypto.randomBytes(size);
    socket.send(text);
    if ((await next(socket)) !== text) throw size;
    socket.send(data);
    if (!(await next(socket)).equals(data)) throw size;
  }
  console.log("sizes");
  const parts = ["\u00fc", "", "in", " parts ", "\u{1f600}"];
  parts.forEach((part, number) => socket.send(part, { fin: number === parts.length - 1 }));
  console.log("parts", await next(socket));
  // The library puts them together: what is in between is to be seen on the wire.
  const frames = [];
  const receive = socket._receiver.dataMessage;
  socket._receiver.dataMessage = function (...rest) {
    frames.push(...this._fragments.slice(frames.length).map(String));
    return receive.apply(this, rest);
  };
  socket.send("in parts");
  await next(socket);
  console.log("streamed", frames.join("|"));
  const pong = new Promise((resolve) => socket.once("pong", (data) => resolve(data.toString() === "payload")));
  socket.ping("payload");
  console.log("ping", (await pong) ? "True" : "False");
  socket.send("ping me");
  console.log("pong", await next(socket));
  socket.close(1000);
  await ended(socket);
  for (const [code, reason] of [[1000, "done"], [1001, ""], [3000, "three"], [4999, "\u00fc".repeat(60)]]) {
    socket = await dial({ perMessageDeflate: true });
    socket.send(`close ${code} ${reason}`);
    console.log("closed by server", ...(await ended(socket)));
    socket = await dial();
    // ws lets nobody say 1001 here.
    if (code === 1001) socket._sender.close(code, reason, true); else socket.close(code, reason);
    await ended(socket);
    console.log("closed by client", code);
  }
  socket = await dial({ perMessageDeflate: { threshold: 0 } }, ["two"]);
  console.log("deflated", names(socket), socket.protocol);
  for (const size of [1, 70000, 4 << 20]) {
    socket.send("y".repeat(size));
    if ((await next(socket)) !== "y".repeat(size)) throw size;
  }
  socket.close(1000);
  await ended(socket);
  socket = await dial();
  socket._socket.write(Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28]));
  console.log("no text", (await ended(socket))[0]);
  // One that goes without a word.
  (await dial()).terminate();
})();
