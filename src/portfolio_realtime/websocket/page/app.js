// The live value of one account: one WebSocket, the newest message kept, one drawing a frame.
// Money stays text from the wire to the screen; numbers are made of it only to see which way it moved.

const HEARTBEAT_MS = 20_000
const SILENCE_MS_MAX = 45_000
const RETRY_MS_MIN = 500
const RETRY_MS_MAX = 15_000
const SPOKEN_MS = 30_000
const LINE_POINTS_MAX = 300
const SYMBOLS_LISTED_MAX = 6
const LIST_MS = 3_000

const $ = (selector) => document.querySelector(selector)
const demo = { isOn: false }
const view = { message: null, rows: new Map(), line: [], isDrawing: false, spokenAt: 0 }
const link = { socket: null, account: null, token: null, attempt: 0, retry: 0, heardAt: 0 }

// The connection

function connect(account) {
  clearTimeout(link.retry)
  if (account !== link.account) forget()
  link.account = account
  const old = link.socket
  link.socket = null
  old?.close(1000)
  show(view.message ? "reconnecting" : "connecting")
  const scheme = location.protocol === "https:" ? "wss:" : "ws:"
  const socket = new WebSocket(`${scheme}//${location.host}/ws/portfolio/${encodeURIComponent(account)}?detail=positions`)
  link.socket = socket
  link.heardAt = Date.now()
  socket.onopen = () => {
    if (link.token) socket.send(JSON.stringify({ type: "auth", token: link.token }))
  }
  socket.onmessage = (event) => {
    if (socket !== link.socket) return
    link.heardAt = Date.now()
    receive(JSON.parse(event.data))
  }
  socket.onclose = (event) => {
    if (socket === link.socket) closed(event)
  }
}

function closed(event) {
  link.socket = null
  if (event.code >= 4500 && event.code <= 4999) {
    show("closed")
    notice(REFUSALS[event.code] ?? `The server has closed the connection: ${event.reason || event.code}.`)
    return
  }
  show("reconnecting")
  const wait = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** link.attempt++) * (0.5 + Math.random() / 2)
  link.retry = setTimeout(reconnect, wait)
}

async function reconnect() {
  if (demo.isOn) await refreshToken().catch(() => {})
  connect(link.account)
}

async function refreshToken() {
  const answer = await fetch("/demo/session", { cache: "no-store" })
  if (!answer.ok) throw new Error(`no session: ${answer.status}`)
  const session = await answer.json()
  link.token = session.token
  return session
}

const REFUSALS = {
  4500: "The server does not accept these credentials.",
  4501: "Too many connections are open for this user.",
  4503: "There is no such account, or it is not yours.",
}

setInterval(() => {
  const socket = link.socket
  if (socket?.readyState !== WebSocket.OPEN) return
  if (Date.now() - link.heardAt > SILENCE_MS_MAX) {
    link.socket = null
    socket.close()
    closed({ code: 1006 })
  } else {
    socket.send(JSON.stringify({ type: "heartbeat", timestamp: Date.now() }))
  }
}, HEARTBEAT_MS)

// A phone that wakes up, or a network that is back, does not wait for the timer.
for (const name of ["online", "pageshow"]) {
  addEventListener(name, () => {
    if (link.account && !link.socket && $("#connection").dataset.state === "reconnecting") reconnect()
  })
}

// Messages

function receive(message) {
  if (message.type === "portfolio") {
    link.attempt = 0
    const isOlder = view.message &&
      (message.epoch - view.message.epoch || message.sequence - view.message.sequence) < 0
    if (isOlder) return
    for (const row of message.positions ?? []) {
      if (Number(row.quantity) === 0) view.rows.delete(row.symbol)
      else view.rows.set(row.symbol, row)
    }
    view.message = message
    if (message.equity !== null) {
      view.line.push(Number(message.equity))
      if (view.line.length > LINE_POINTS_MAX) view.line.shift()
    }
    notice("")
    show(message.stale.length ? "stale" : "live")
    draw()
  } else if (message.type === "token_expiring" && demo.isOn) {
    refreshToken()
      .then(() => link.socket?.send(JSON.stringify({ type: "auth", token: link.token })))
      .catch(() => {}) // the server will close with 4004, and we come back with a fresh one
  } else if (message.type === "error") {
    notice(message.message)
  }
}

function forget() {
  Object.assign(view, { message: null, rows: new Map(), line: [], spokenAt: 0 })
  $("#positions tbody").replaceChildren()
  for (const id of ["#total-value", "#cash", "#last-equity", "#external-cash-flow", "#updated"]) put($(id), "—")
  put($("#today-return .text"), "—")
  put($("#today-return .arrow"), "")
  $("#today-return").className = ""
  $("#caveat").hidden = $("#no-positions").hidden = true
  put($("#position-count"), "")
  drawLine()
}

// The screen

const STATES = {
  connecting: "Connecting…",
  live: "Live",
  reconnecting: "Reconnecting…",
  stale: "Prices are old",
  closed: "Not connected",
}

function show(state) {
  const element = $("#connection")
  if (element.dataset.state === state) return
  element.dataset.state = state
  put($("#connection-text"), STATES[state])
  document.body.classList.toggle("old", state === "reconnecting" || state === "closed")
}

function notice(text) {
  $("#notice").hidden = !text
  put($("#notice"), text)
}

function draw() {
  if (view.isDrawing) return
  view.isDrawing = true
  requestAnimationFrame(() => {
    view.isDrawing = false
    if (view.message) drawMessage(view.message)
  })
}

function drawMessage(message) {
  flash($("#total-value"), message.total_value ?? "—", message.equity)
  const direction = message.day_pnl === null ? "" : sign(message.day_pnl)
  $("#today-return").className = direction
  put($("#today-return .arrow"), { up: "▲", down: "▼" }[direction] ?? "")
  put($("#today-return .text"), message.today_return ?? "—")
  drawCaveat(message)
  put($("#cash"), dollars(message.cash))
  put($("#last-equity"), dollars(message.last_equity))
  put($("#external-cash-flow"), Number(message.external_cash_flow) ? dollars(message.external_cash_flow) : "none")
  const updated = new Date(message.timestamp)
  put($("#updated"), updated.toLocaleTimeString())
  $("#updated").dateTime = message.timestamp
  $("#updated").title = `Newest price: ${new Date(message.as_of).toLocaleString()}`
  drawRows(message)
  drawLine()
  speak(message)
  document.title = `${message.total_value ?? "—"} · Portfolio`
}

function drawCaveat(message) {
  const parts = []
  if (message.unpriced.length) {
    parts.push(`Unpriced: ${listed(message.unpriced)}; the known part is ${dollars(message.known_equity)}`)
  }
  if (message.stale.length) parts.push(`Old prices: ${listed(message.stale)}`)
  $("#caveat").hidden = !parts.length
  put($("#caveat"), parts.join(" · "))
}

function drawRows(message) {
  const body = $("#positions tbody")
  const existing = new Map([...body.rows].map((row) => [row.dataset.symbol, row]))
  const symbols = [...view.rows.keys()].sort()
  const stale = new Set(message.stale)
  symbols.forEach((symbol, index) => {
    const element = existing.get(symbol) ?? newRow(symbol)
    existing.delete(symbol)
    if (body.rows[index] !== element) body.insertBefore(element, body.rows[index] ?? null)
    drawRow(element, view.rows.get(symbol), stale.has(symbol))
  })
  for (const gone of existing.values()) gone.remove()
  put($("#position-count"), symbols.length ? `· ${symbols.length}` : "")
  $("#no-positions").hidden = symbols.length > 0
}

function newRow(symbol) {
  const row = document.createElement("tr")
  row.dataset.symbol = symbol
  const head = document.createElement("th")
  head.scope = "row"
  head.append(symbol)
  row.append(head, ...Array.from({ length: 5 }, () => document.createElement("td")))
  return row
}

function drawRow(element, row, isStale) {
  const [head, quantity, mark, value, day, unrealized] = element.cells
  const tag = row.mark === null ? "unpriced" : isStale ? "old price" : ""
  if ((head.lastElementChild?.textContent ?? "") !== tag) {
    head.lastElementChild?.remove()
    if (tag) head.append(Object.assign(document.createElement("span"), { className: "tag", textContent: tag }))
  }
  put(quantity, grouped(row.quantity))
  flash(mark, row.mark === null ? "—" : dollars(row.mark), row.mark)
  const quality = (row.mark_quality ?? row.mark_source ?? "").replaceAll("_", " ")
  mark.title = row.mark_as_of ? `${quality}, ${new Date(row.mark_as_of).toLocaleString()}` : ""
  flash(value, dollars(row.market_value), row.market_value)
  signed(day, row.day_pnl)
  signed(unrealized, row.unrealized_pnl)
}

function signed(cell, amount) {
  put(cell, amount === null ? "—" : (Number(amount) > 0 ? "+" : "") + dollars(amount))
  cell.className = amount === null ? "" : sign(amount)
}

function flash(element, text, amount) {
  const before = element.dataset.amount
  put(element, text)
  if (amount === null || amount === before) return
  element.dataset.amount = amount
  if (before === undefined) return
  element.classList.remove("flash-up", "flash-down")
  void element.offsetWidth // begins the animation anew
  element.classList.add(Number(amount) < Number(before) ? "flash-down" : "flash-up")
}

function drawLine() {
  const values = view.line
  const low = Math.min(...values)
  const span = Math.max(...values) - low || 1
  const points = values.map((value, index) =>
    `${((index / Math.max(values.length - 1, 1)) * 320).toFixed(1)},${(90 - ((value - low) / span) * 84).toFixed(1)}`)
  const isDrawn = values.length > 1
  $("#line polyline").setAttribute("points", isDrawn ? points.join(" ") : "")
  $("#line polygon").setAttribute("points", isDrawn ? `0,96 ${points.join(" ")} 320,96` : "")
  $("#line").setAttribute("class", isDrawn ? sign(values.at(-1) - values[0]) : "empty")
}

function speak(message) {
  if (Date.now() - view.spokenAt < SPOKEN_MS) return
  view.spokenAt = Date.now()
  put($("#spoken"), `Total value ${message.total_value ?? "not known"}, today ${message.today_return ?? "not known"}`)
}

// Text

function put(element, text) {
  if (element.textContent !== text) element.textContent = text
}

// "up", "down" or "", of a decimal text or a number
function sign(amount) {
  const number = Number(amount)
  return number > 0 ? "up" : number < 0 ? "down" : ""
}

function grouped(text) {
  const [whole, fraction] = text.split(".")
  return whole.replace("-", "−").replace(/\B(?=(\d{3})+$)/g, ",") + (fraction === undefined ? "" : `.${fraction}`)
}

function listed(symbols) {
  const rest = symbols.length - SYMBOLS_LISTED_MAX
  return symbols.slice(0, SYMBOLS_LISTED_MAX).join(", ") + (rest > 0 ? ` and ${rest} more` : "")
}

function dollars(text) {
  if (text === null || text === undefined) return "—"
  const amount = text.replace("-", "")
  const [whole, fraction = ""] = amount.split(".")
  return `${text.startsWith("-") ? "−" : ""}$${grouped(whole)}.${fraction.padEnd(2, "0")}`
}

// The beginning

const chosen = () => decodeURIComponent(location.hash.slice(1))

function choose(account) {
  history.replaceState(null, "", `#${encodeURIComponent(account)}`)
  link.attempt = 0
  $("#summary").hidden = $("#holdings").hidden = false
  connect(account)
}

async function begin() {
  let session = null
  try {
    session = await refreshToken()
  } catch {
    // not the demo: the visitor says which account
  }
  if (session?.accounts.length) return beginDemo(session)
  if (session) {
    demo.isOn = true
    show("connecting")
    return void setTimeout(begin, 1000) // the accounts are still being read
  }
  $("#sign-in").hidden = false
  $("#account-id").value = chosen()
  $("#sign-in").onsubmit = (event) => {
    event.preventDefault()
    link.token = $("#token").value.trim() || null
    notice("")
    choose($("#account-id").value.trim())
  }
}

function beginDemo(session) {
  demo.isOn = true
  const picker = $("#account")
  list(session.accounts, chosen())
  picker.onchange = () => choose(picker.value)
  $("#picker").hidden = false
  choose(picker.value)
}

function list(accounts, current) {
  const picker = $("#account")
  const isLonger = accounts.length > picker.options.length
  if (isLonger) {
    picker.replaceChildren(...accounts.map((id) => new Option(id, id)))
    if (accounts.includes(current)) picker.value = current
    // just after the start accounts are still being read: look again until there are no more
    setTimeout(() => refreshToken().then((session) => list(session.accounts, picker.value), () => {}), LIST_MS)
  }
}

begin()
