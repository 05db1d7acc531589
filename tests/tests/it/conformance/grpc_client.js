// A bot that calls conf.Echo in each way: a line for each.
const fs = require("fs"), crypto = require("crypto"), grpc = require("@grpc/grpc-js");

const roots = fs.readFileSync(process.env.SSL_CERT_FILE);
const options = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 };
const client = new grpc.Client("raw.test:443", grpc.credentials.createSsl(roots), options);
const same = (bytes) => bytes;
const within = (ms) => ({ deadline: Date.now() + ms });
const limit = 30000;
const name = (error) => grpc.status[error.code];

function unary(path, bytes, ms = limit, service = "conf.Echo") {
  let call;
  const done = new Promise((resolve) => {
    const end = (error, answer) => resolve({ error, answer });
    call = client.makeUnaryRequest(`/${service}/${path}`, same, same, bytes, new grpc.Metadata(), within(ms), end);
  });
  return Object.assign(done, { call });
}

const ended = (call) =>
  new Promise((resolve) => {
    const messages = [];
    call.on("data", (bytes) => messages.push(bytes.toString()));
    call.on("error", (error) => resolve({ error, messages }));
    call.on("end", () => resolve({ messages }));
  });

(async () => {
  const empty = Buffer.alloc(0), metadata = () => new grpc.Metadata();
  const hello = unary("Unary", Buffer.from("hello"));
  let first, last;
  hello.call.on("metadata", (metadata) => (first = metadata.get("x-first")[0]));
  hello.call.on("status", (status) => (last = status.metadata));
  const { answer } = await hello;
  await new Promise(setImmediate);
  console.log("unary", answer.toString(), first, last.get("x-total")[0], last.get("x-raw-bin")[0].toString("hex"));

  const stream = (path, bytes) => client.makeServerStreamRequest(`/conf.Echo/${path}`, same, same, bytes, metadata(), within(limit));
  const down = await ended(stream("Down", Buffer.from("500")));
  console.log("down", down.messages.reduce((sum, number) => sum + Number(number), 0));

  const up = await new Promise((resolve) => {
    const end = (error, answer) => resolve(error ?? answer);
    const call = client.makeClientStreamRequest("/conf.Echo/Up", same, same, metadata(), within(limit), end);
    for (let number = 0; number < 500; number++) call.write(Buffer.alloc(10, "x"));
    call.end();
  });
  console.log("up", up.toString());

  // Each answer comes before the next question.
  const call = client.makeBidiStreamRequest("/conf.Echo/Both", same, same, metadata(), within(limit));
  const both = [];
  call.on("data", (bytes) => {
    both.push(bytes.toString());
    if (both.length < 50) call.write(Buffer.from(`q${both.length}`));
    else call.end();
  });
  call.write(Buffer.from("q0"));
  await new Promise((resolve) => call.on("end", resolve));
  console.log("both", both.length, both.at(-1));

  const fail = (await unary("Fail", empty)).error;
  console.log("fail", name(fail), fail.details);
  const late = await ended(stream("Late", empty));
  console.log("late", late.messages.join(), name(late.error), late.error.details);
  console.log("none", name((await unary("Nothing", empty)).error));
  console.log("denied", name((await unary("Nothing", empty, limit, "conf.Other")).error));
  console.log("slow", name((await unary("Slow", empty, 700)).error));
  const slow = unary("Slow", empty);
  setTimeout(() => slow.call.cancel(), 500);
  console.log("cancel", name((await slow).error));
  const big = crypto.randomBytes(10 << 20);
  console.log("big", (await unary("Unary", big)).answer?.equals(big) ? "True" : "False");
  const many = await Promise.all([...Array(1000).keys()].map((number) => unary("Unary", Buffer.from(String(number)))));
  console.log("many", many.filter(({ answer }, number) => answer?.toString() === String(number)).length);
  client.close();
})();
