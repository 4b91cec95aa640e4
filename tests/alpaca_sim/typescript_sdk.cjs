// Alpaca's TypeScript SDK against a simulator: what it reads, one JSON object a line. Commands come on standard input.
const { Alpaca } = require("@alpacahq/alpaca-trade-api");
const { createInterface } = require("node:readline");

const [url] = process.argv.slice(2);
const say = (kind, value) => console.log(JSON.stringify({ kind, value: value === undefined ? null : value }));
const fetchApi = (address, init) => {
  const { pathname, search } = new URL(address);
  return fetch(url + pathname + search, init); // the SDK has no setting for the hosts of REST
};
const clientOf = ({ key, secret }) => new Alpaca({ keyId: key, secret, fetchApi, retry: false });
const open = [];

async function settled(promise) {
  try {
    return { value: await promise };
  } catch (error) {
    return { error: error.name, status: error.status ?? null };
  }
}

const commands = {
  async account(body) {
    const { trading } = clientOf(body);
    return {
      account: await trading.account.getAccount(),
      positions: await trading.positions.getAllOpenPositions(),
      one: body.held ? await trading.positions.getOpenPosition({ symbolOrAssetId: body.held }) : null,
      activities: await trading.accountActivities.getAccountActivities({ pageSize: 100 }),
      history: await trading.portfolioHistory.getAccountPortfolioHistory({ period: "1D", timeframe: "1D" }),
    };
  },
  async days(body) {
    const { trading } = clientOf(body);
    return {
      clock: await trading.clock.legacyClock(),
      calendar: await trading.calendar.legacyCalendar({
        start: new Date("2026-11-23"),
        end: new Date("2026-11-30"),
      }),
    };
  },
  async market(body) {
    const { marketData } = clientOf(body);
    const symbols = body.stocks.join(",");
    return {
      snapshots: await marketData.stocks.stockSnapshots({ symbols, feed: "sip" }),
      trades: await marketData.stocks.stockLatestTrades({ symbols, feed: "sip" }),
      bars: await marketData.stocks.stockLatestBars({ symbols, feed: "sip" }),
      price: await settled(marketData.getLatestPrice(body.stocks[0], { feed: "sip" })),
      coins: await marketData.crypto.cryptoSnapshots({ loc: "us", symbols: body.coins.join(",") }),
      contracts: await marketData.options.optionSnapshots({ symbols: body.contracts.join(",") }),
    };
  },
  async listen(body) {
    const { marketData, trading } = clientOf(body);
    const ws = url.replace("http", "ws");
    const stocks = marketData.stockStream({ url: `${ws}/v2/sip` });
    const coins = marketData.cryptoStream({ url: `${ws}/v1beta3/crypto/us` });
    const contracts = marketData.optionStream({ url: `${ws}/v1beta1/indicative` });
    const updates = trading.stream({ url: `${ws}/stream` });
    open.push(stocks, coins, contracts, updates);
    stocks.onTrade((trade) => say("stock trade", trade));
    stocks.onBar((bar) => say("bar", bar));
    coins.onTrade((trade) => say("coin trade", trade));
    contracts.onTrade((trade) => say("contract trade", trade));
    updates.onTradeUpdate((update) => say("trade update", update));
    const streams = { stocks, coins, contracts, updates };
    for (const [name, stream] of Object.entries(streams)) {
      stream.onError((text) => say("error", `${name}: ${text}`));
      stream.on("subscription", (told) => say("subscribed", { name, told }));
    }
    stocks.subscribeForTrades(body.stocks);
    stocks.subscribeForBars(body.stocks);
    coins.subscribeForTrades(body.coins);
    contracts.subscribeForTrades(body.contracts);
    updates.subscribeTradeUpdates();
    for (const stream of Object.values(streams)) stream.connect();
    const results = await Promise.all(Object.values(streams).map((one) => one.waitForAuthenticationResult()));
    return results.map((result) => result.status);
  },
  async refused(body) {
    const { trading } = clientOf(body);
    return settled(trading.account.getAccount());
  },
};

createInterface({ input: process.stdin }).on("line", async (line) => {
  const { command, ...body } = JSON.parse(line);
  if (command === "end") {
    for (const stream of open) stream.disconnect();
    process.exit(0);
  }
  try {
    say(command, await commands[command](body));
  } catch (error) {
    say("failed", `${command}: ${error.stack}`);
  }
});
