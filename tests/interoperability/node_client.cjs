// One conversation of a WebSocket client in Node: `node node_client.cjs builtin|ws URL TOKEN`.
// Prints each message on a line, then `closed CODE`. It ends the conversation after two values and an ack.
const [kind, url, token] = process.argv.slice(2);
const socket = kind === "ws" ? new (require("ws").WebSocket)(url) : new WebSocket(url);
let values = 0;

socket.onopen = () => socket.send(JSON.stringify({ type: "auth", token }));
socket.onmessage = ({ data }) => {
  console.log(data);
  const { type } = JSON.parse(data);
  if (type === "portfolio" && ++values === 2) socket.send('{"type":"heartbeat","timestamp":"κόσμε"}');
  if (type === "heartbeat_ack") socket.close(1000, "done");
};
socket.onerror = () => process.exit(1);
socket.onclose = ({ code }) => console.log(`closed ${code}`);
