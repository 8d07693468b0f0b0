/** Wiring: what depends on what, and in which order it starts. */

import { showAccount } from "./account.js";
import { Api } from "./api.js";
import { showBanner } from "./banner.js";
import { showComposer } from "./composer.js";
import { Hood } from "./hood.js";
import { showMessages } from "./messages.js";
import { Outbox } from "./outbox.js";
import { showPending } from "./pending.js";
import { showPeople } from "./people.js";
import { Session } from "./session.js";
import { Connection } from "./socket.js";
import { showStats } from "./stats.js";
import { Store } from "./store.js";
import { Sync } from "./sync.js";

const session = new Session();
const store = new Store();
const hood = new Hood();
const api = new Api(session, hood.log);
const connection = new Connection(session, store, hood.log);
const sync = new Sync(api, store, session, connection);
const outbox = new Outbox(api, store, session, connection);

const say = showBanner({ connection, sync });
const { editLast, scrollToEnd } = showMessages({ store, session, api });
showPending({ outbox, store, session });
showPeople({ store, session, sync });
showComposer({ session, outbox, editLast, scrollToEnd });
showAccount({ session, store, api, say });
showStats({ log: hood.log });

outbox.start();
hood.start({ connection, reload: () => sync.reload() });
connection.start();
sync.start();
