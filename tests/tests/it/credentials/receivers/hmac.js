// An API that believes calls which are signed with a key that it shares, of this minute, each once.
'use strict';
const [address, certificate, key, secret] = process.argv.slice(2);
const crypto = require('crypto');
const fs = require('fs');
const seen = new Set();
const server = require('https').createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) });

server.on('request', (request, response) => {
  const body = [];
  request.on('data', (piece) => body.push(piece));
  request.on('end', () => {
    const answer = (status, text) => response.writeHead(status, { 'content-type': 'text/plain' }).end(text);
    const { 'x-time': time, 'x-nonce': nonce, authorization = '', host } = request.headers;
    const digest = crypto.createHash('sha256').update(Buffer.concat(body)).digest('base64');
    const text = [request.method, request.url, host, time, nonce, digest].join('\n');
    const expected = 'HMAC bot:' + crypto.createHmac('sha512', Buffer.from(secret, 'base64')).update(text).digest('base64');
    if (Math.abs(Date.now() / 1000 - Number(time)) > 60) return answer(401, 'not of this minute');
    if (seen.has(nonce)) return answer(401, 'seen before');
    seen.add(nonce);
    if (authorization !== expected) return answer(401, 'the signature is wrong');
    if (request.rawHeaders.filter((name) => name.toLowerCase().replace('_', '-') === 'x-nonce').length !== 1)
      return answer(400, 'two nonces');
    answer(200, `believed ${Buffer.concat(body).length}`);
  });
});
server.listen(443, address);
