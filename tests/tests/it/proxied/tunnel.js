// Asks a proxy for a tunnel with Node's own client, and calls an API through it: HOST PORT API PATH.
const http = require('http');
const https = require('https');
const [host, port, api, path] = process.argv.slice(2);
const asked = http.request({ host, port, method: 'CONNECT', path: `${api}:443`, headers: { host: `${api}:443` } });
asked.on('connect', (answer, socket) => {
  if (answer.statusCode !== 200) throw new Error(`CONNECT: ${answer.statusCode}`);
  https.get({ host: api, path, socket, agent: false }, (response) => {
    let body = '';
    response.on('data', (data) => { body += data; });
    response.on('end', () => { console.log(response.statusCode, JSON.parse(body).key); socket.end(); });
  });
});
asked.on('error', (error) => { console.error(error); process.exitCode = 1; });
asked.end();
