export async function lookUp(customer) {
  return { customer, balance: 1200 };
}

export async function refund(amount) {
  return `refunded ${amount}`;
}

export async function sendMail(text) {
  return `mailed: ${text}`;
}

const tickets = new Map();

export async function askPerson(question) {
  tickets.set('t-1', `yes to ${question}`);
  return 't-1';
}

export async function readDecision(ticket) {
  const decision = tickets.get(ticket);
  if (!decision) throw new Error(`no ticket ${ticket}`);
  return decision;
}
