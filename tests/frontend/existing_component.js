// What a page does that was written for another server: the token in the address, texts that are always texts,
// "open" taken for success, quick repeats, then HTTP every 30 s. Written from a description of its behaviour.
window.existing = ({ url, accountId, token, readByHttp, pollMs = 30_000, repeatMs = 1_000 }) => {
  const state = { total: "$0.00", gained: "+$0.00 (0.00%)", color: "", sockets: 0, polls: 0, isPolling: false };
  let repeats = 0;

  const take = ({ account_id, total_value, today_return }) => {
    if (account_id !== accountId) return;
    state.total = total_value;
    state.gained = today_return;
    state.color = today_return.startsWith("-") ? "red" : today_return.startsWith("+") ? "green" : "grey";
  };
  const poll = async () => {
    state.polls++;
    take(await readByHttp());
    setTimeout(poll, pollMs);
  };
  const dial = () => {
    state.sockets++;
    const socket = new WebSocket(`${url}/ws/portfolio/${accountId}?token=${token}`);
    let beat;
    socket.onopen = () => {
      repeats = 0;
      beat = setInterval(() => socket.send(JSON.stringify({ type: "heartbeat" })), 15_000);
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type !== "heartbeat_ack") take(message);
    };
    socket.onclose = ({ code }) => {
      clearInterval(beat);
      if (state.isPolling) return;
      if (++repeats > 1 || [4001, 4003].includes(code)) {
        state.isPolling = true;
        poll();
      } else setTimeout(dial, repeatMs * 2 ** repeats);
    };
  };
  dial();
  return state;
};
