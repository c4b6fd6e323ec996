#include "pkg/netstack/packet/packet.h"

#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

namespace {

// One list for all stacks of the process, since a packet may be made on one thread and freed on another; before it a
// short one of each thread, for the packets that stay there, as those of a loopback mostly do.
class Pool {
 public:
  static constexpr size_t kMaxCached = 4096;
  static constexpr size_t kMaxOfThread = 32;

  Packet* Take() {
    List& own = OfThread();
    if (!own.empty()) {
      Packet* p = &own.front();
      own.pop_front();
      return p;
    }
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
    List& own = OfThread();
    if (own.size() < kMaxOfThread && !own.dead) {
      own.push_front(*p);
      return;
    }
    Share(p);
  }

 private:
  struct List : boost::intrusive::slist<Packet> {
    bool dead = false;  // the thread ends; packets that its other destructors free go to all
    ~List();
  };

  // Not used across anything that could park, so a fiber that moves to another thread never holds a stale one.
  static List& OfThread() {
    thread_local List list;
    return list;
  }
  void Share(Packet* p) {
    {
      sync::MutexLock lock(mu_);
      if (free_.size() < kMaxCached) {
        free_.push_front(*p);
        return;
      }
    }
    delete p;
  }

  sync::Mutex mu_{sync::Rank::kNetPool};
  boost::intrusive::slist<Packet> free_ GUARDED_BY(mu_);
};

Pool& pool() {
  static Pool* const p = new Pool;  // never destroyed: packets may outlive main
  return *p;
}

Pool::List::~List() {
  dead = true;
  while (!empty()) {
    Packet* p = &front();
    pop_front();
    pool().Share(p);
  }
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
  p->whole_size = o.whole_size;
  p->hardware_type = o.hardware_type;
  p->offload = o.offload;
  p->received = o.received;
  return p;
}

}  // namespace redoubt::netstack
