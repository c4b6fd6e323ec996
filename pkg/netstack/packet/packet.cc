#include "pkg/netstack/packet/packet.h"

#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

namespace {

// One list for all stacks of the process: a packet is made on one thread and freed on another, so lists of threads
// would only fill and run dry.
class Pool {
 public:
  static constexpr size_t kMaxCached = 4096;

  Packet* Take() {
    {
      sync::MutexLock lock(mu_);
      if (!free_.empty()) {
        Packet* p = &free_.front();
        free_.pop_front();
        return p;
      }
    }
    return new Packet;
  }
  void Put(Packet* p) {
    // Through the default constructor, so that no field of an old packet can show in a new one.
    p->~Packet();
    new (p) Packet;
    {
      sync::MutexLock lock(mu_);
      if (free_.size() < kMaxCached) {
        free_.push_front(*p);
        return;
      }
    }
    delete p;
  }

 private:
  sync::Mutex mu_{sync::Rank::kNetPool};
  boost::intrusive::slist<Packet> free_ GUARDED_BY(mu_);
};

Pool& pool() {
  static Pool* const p = new Pool;  // never destroyed: packets may outlive main
  return *p;
}

}  // namespace

void PacketDeleter::operator()(Packet* packet) const { pool().Put(packet); }

PacketPtr NewPacket() { return PacketPtr(pool().Take()); }

PacketPtr NewPacket(Buffer data) {
  PacketPtr p = NewPacket();
  p->data = std::move(data);
  return p;
}

PacketPtr ClonePacket(const Packet& o) {
  PacketPtr p = NewPacket(o.data.Clone());
  p->interface = o.interface;
  p->interface_index = o.interface_index;
  p->type = o.type;
  p->ethertype = o.ethertype;
  p->link_source = o.link_source;
  p->link_destination = o.link_destination;
  p->source = o.source;
  p->destination = o.destination;
  p->protocol = o.protocol;
  p->ttl = o.ttl;
  p->traffic_class = o.traffic_class;
  p->flow_label = o.flow_label;
  p->transport_offset = o.transport_offset;
  p->options_length = o.options_length;
  p->router_alert = o.router_alert;
  p->source_port = o.source_port;
  p->offload = o.offload;
  p->received = o.received;
  return p;
}

}  // namespace redoubt::netstack
