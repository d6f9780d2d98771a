// Drives @apperate/iexjs through Tollgate. The world comes as JSON in argv[2]; what each step gave goes out as JSON.
const { createRequire } = require("module");

const world = JSON.parse(process.argv[2]);
const iexjs = createRequire(world.installed + "/")("@apperate/iexjs");
iexjs.overrideUrl({ url: `${world.base}/v1/` });
const client = (token) => new iexjs.Client({ api_token: token, version: "v1" });
const good = client(world.good);
const secret = client(world.secret);

// Two events of a stream, then it is closed.
const listen = (source) =>
  new Promise((resolve, reject) => {
    const seen = [];
    source((datum) => {
      seen.push(datum);
      // More may come before it is told.
      if (seen.length === 2) resolve([...seen]);
    }).onerror = (error) => reject(new Error(error.message));
  });

// A throttle lets some by before it refuses.
const until_refused = async (ask) => {
  for (let at = 0; at < 50; at += 1) await ask();
  return "never refused";
};

const steps = {
  quote: () => good.quote({ symbol: "aapl" }),
  chart: () => good.chart({ symbol: "aapl", range: "1m" }),
  batch: () => good.batch({ symbols: ["aapl", "msft"], fields: ["quote", "chart"] }),
  batch_of_one: () => good.batch({ symbols: "aapl", fields: "quote" }),
  read: () => good.apperate.queryData({ workspace: "MY", id: "CARS", key: "audi", token: world.good, limit: 2 }),
  read_core: () => good.apperate.queryData({ workspace: "CORE", id: "QUOTE", key: "aapl,msft", token: world.good }),
  write: () =>
    good.apperate.write({ workspace: "MY", id: "CARS", token: world.good, data: [{ make: "audi", model: "js", year: 2008 }] }),
  written: () => good.apperate.queryData({ workspace: "MY", id: "CARS", key: "audi", subkey: "js", token: world.good }),
  list: () => secret.apperate.listDatasets({ workspace: "MY", token: world.secret }),
  // The library reads its last argument as an object.
  stream: () => listen((callback) => good.stocksUS1SecondSSE("aapl,msft", callback, {})),
  usage: () => secret.usage(),
  messages: () => secret.usage("messages"),
  metadata: () => secret.metadata(),
  status: () => good.status(),
  budget: () => secret.messageBudget(1000000),
  pay_as_you_go: () => iexjs.payAsYouGo(true, world.secret, "v1"),
  unknown: () => client(world.unknown).quote({ symbol: "aapl" }),
  domain: () => client(world.domain).quote({ symbol: "aapl" }),
  domain_read: () => client(world.domain).apperate.queryData({ workspace: "MY", id: "CARS", token: world.domain }),
  exhausted: () => client(world.exhausted).quote({ symbol: "aapl" }),
  throttled: () => until_refused(() => client(world.throttled).quote({ symbol: "aapl" })),
  no_leave: () => good.apperate.queryData({ workspace: "MY", id: "WEATHER", key: "Seattle", token: world.good }),
};

(async () => {
  const told = {};
  for (const [name, step] of Object.entries(steps)) {
    try {
      told[name] = { value: await step() };
    } catch (error) {
      told[name] = { error: error.message };
    }
  }
  process.stdout.write(JSON.stringify(told), () => process.exit(0));
})();
