// Loaded into NNI's manager before its own code: it would listen on every interface and outlive who began it.
"use strict";
const net = require("node:net");

const peers = (process.env.EDGEMETA_NNI_PEERS || "").split(",").filter(Boolean);
const known = new Set(["127.0.0.1", "::1", ...peers]);
delete process.env.NODE_OPTIONS; // what the manager starts is not the manager ...
process.env.EDGEMETA_NNI_MANAGER = String(process.pid); // ... and ends with it

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...given) {
  if (typeof given[0] !== "number") return listen.apply(this, given);
  if (!peers.length) return listen.call(this, given[0], "127.0.0.1", ...given.filter((own) => typeof own === "function"));
  this.prependListener("connection", (socket) => {
    const address = String(socket.remoteAddress).replace(/^::ffff:/, "");
    if (!known.has(address)) socket.destroy();
  });
  return listen.apply(this, given);
};

const parent = process.ppid;
setInterval(() => {
  if (process.ppid === parent) return;
  process.kill(process.pid, "SIGTERM"); // the manager's own way out, which stops its trials
  setTimeout(() => process.exit(1), 5000).unref();
}, 500).unref();
