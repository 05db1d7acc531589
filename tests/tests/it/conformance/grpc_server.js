// A gRPC server of any bytes: grpc_server.js ADDRESS CERT KEY. Each call that was given up is a line.
const [address, certificate, key] = process.argv.slice(2);
const fs = require("fs"), grpc = require("@grpc/grpc-js");

const whole = { serialize: (bytes) => bytes, deserialize: (bytes) => bytes };
const method = (name, requestStream, responseStream) => ({
  path: `/conf.Echo/${name}`, requestStream, responseStream,
  requestSerialize: whole.serialize, requestDeserialize: whole.deserialize,
  responseSerialize: whole.serialize, responseDeserialize: whole.deserialize,
});
const service = {
  unary: method("Unary", false, false), fail: method("Fail", false, false), slow: method("Slow", false, false),
  down: method("Down", false, true), late: method("Late", false, true),
  up: method("Up", true, false), both: method("Both", true, true),
};
const status = grpc.status;
const known = (call) => call.metadata.get("authorization")[0] === "Bearer canary_7f3a9d51e8b24c06_live";
const unknown = { code: status.UNAUTHENTICATED, details: "no key" };
const trailers = (pairs) => {
  const metadata = new grpc.Metadata();
  for (const [name, value] of pairs) metadata.set(name, value);
  return metadata;
};
const server = new grpc.Server({ "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 });
server.addService(service, {
  unary(call, done) {
    if (!known(call)) return done(unknown);
    call.sendMetadata(trailers([["x-first", "head"]]));
    const size = String(call.request.length);
    done(null, call.request, trailers([["x-total", size], ["x-raw-bin", Buffer.from([0, 255])]]));
  },
  down(call) {
    if (!known(call)) return call.emit("error", unknown);
    for (let number = 0; number < Number(call.request); number++) call.write(Buffer.from(String(number)));
    call.end();
  },
  up(call, done) {
    if (!known(call)) return done(unknown);
    let total = 0;
    call.on("data", (bytes) => (total += bytes.length));
    call.on("end", () => done(null, Buffer.from(String(total))));
  },
  both(call) {
    if (!known(call)) return call.emit("error", unknown);
    call.on("data", (bytes) => call.write(Buffer.from(bytes.toString().toUpperCase())));
    call.on("end", () => call.end());
  },
  fail(call, done) {
    if (!known(call)) return done(unknown);
    done({ code: status.NOT_FOUND, details: "no such thing: \u00fc 100 %", metadata: trailers([["x-why", "none"]]) });
  },
  late(call) {
    if (!known(call)) return call.emit("error", unknown);
    call.write(Buffer.from("one"));
    setImmediate(() => call.emit("error", { code: status.RESOURCE_EXHAUSTED, details: "after one" }));
  },
  slow(call, done) {
    if (!known(call)) return done(unknown);
    const left = call.getDeadline() - Date.now();
    const timer = setTimeout(() => console.log("slow kept"), 20000);
    call.on("cancelled", () => {
      clearTimeout(timer);
      console.log("slow", left < 2000 ? "deadline" : "none", "given up");
    });
  },
});
const pair = { cert_chain: fs.readFileSync(certificate), private_key: fs.readFileSync(key) };
server.bindAsync(`${address}:443`, grpc.ServerCredentials.createSsl(null, [pair]), (error) => {
  if (error) throw error;
});
