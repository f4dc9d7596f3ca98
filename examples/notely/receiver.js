// What a user of notely wrote in Node.js, with the verification that notely's documentation gives:
//
//     WEBHOOK_SECRET=… node examples/notely/receiver.js 8090

const crypto = require('crypto');
const http = require('http');

function verifySignature(payload, signature, secret) {
  const hmac = crypto.createHmac('sha256', secret);
  hmac.update(JSON.stringify(payload));
  const expected = hmac.digest('hex');

  if (signature.startsWith('sha256=')) {
    signature = signature.substring(7);
  }

  return crypto.timingSafeEqual(
    Buffer.from(signature),
    Buffer.from(expected)
  );
}

const server = http.createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const payload = JSON.parse(Buffer.concat(parts).toString());
  if (!verifySignature(payload, request.headers['x-webhook-signature'], process.env.WEBHOOK_SECRET)) {
    return response.writeHead(401).end('Invalid signature');
  }
  const { event_type, data } = payload;
  console.log(JSON.stringify([event_type, data]));
  response.writeHead(200).end('OK');
});

server.listen(Number(process.argv[2]), '127.0.0.1', () => console.log(JSON.stringify(server.address().port)));
