// Node's `ws` sends one text to every client; SIGUSR2 switches it on and off.
const [port, bytes, intervalMs] = process.argv.slice(2).map(Number);
const { WebSocketServer } = require("ws");
const server = new WebSocketServer({ host: "127.0.0.1", port, perMessageDeflate: false, backlog: 4096 });
const message = "x".repeat(bytes);
let isSending = false;
process.on("SIGUSR2", () => { isSending = !isSending; });
setInterval(() => {
  if (isSending) for (const client of server.clients) client.send(message);
}, intervalMs);
