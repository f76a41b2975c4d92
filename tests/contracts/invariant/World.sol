// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {HookToken} from "../../../contracts/mocks/HookToken.sol";
import {CourtRules} from "../../../contracts/types/Cases.sol";
import {Messages, Offer} from "../../../contracts/types/Messages.sol";
import {Fixture} from "../support/Fixture.sol";
import {ContractBuyer, HookDollar, Thief} from "./Actors.sol";

/// @title Who takes part in the campaign, and what the model keeps of them
/// @notice The model is kept from what was signed and sent and from the rules as they are written; it asks the
/// contracts under test for nothing but whom chance drew as jurors. People are numbers, so that terms fit a slot.
abstract contract World is Fixture {
    struct Ghost {
        uint64 amount;
        uint40 openedAt;
        uint40 expiresAt;
        uint8 buyer;
        uint8 key;
        uint8 node;
        uint16 epoch;
        uint32 serial;
        bool closed;
        uint64 deposited;
        uint64 paid;
        uint32 throughSeq;
        uint64 returned;
        uint64 pending;
        uint64 held;
        uint32 claimSeq;
        uint32 replaced;
        uint40 finalAt;
        uint32 claimFirst; // the claim's first job
        uint8 claimCount;
        bytes32 id;
    }

    struct KeyGhost {
        uint64 perSession;
        uint64 perDay;
        uint64 total;
        uint40 expiresAt;
        uint8 list;
        uint64 spentToday;
        uint64 spent;
        uint32 day;
        uint32 nonce;
    }

    struct ProviderGhost {
        uint64 staked;
        uint64 unstaking;
        uint64 locked;
        uint40 unstakeAt;
        uint64 putIn;
        uint64 tookOut;
        uint64 lost;
    }

    struct JurorGhost {
        uint64 balance;
        uint64 locked;
        bool isInPool;
        uint64 weight;
        uint40 since; // block
        uint32 joined; // number of the call
    }

    /// @dev An order and its receipt; both follow from this.
    struct Job {
        uint32 session;
        uint32 seq;
        uint64 amount;
        uint40 at;
        uint8 fault;
        uint32 dispute; // index of its case plus 1
        uint32 number; // makes it unlike any other
    }

    struct Dispute {
        uint32 job;
        uint8 state;
        uint8 round;
        bool isRefilled;
        bool isReferred;
        bool isSham;
        uint40 phaseEnds;
        uint40 late; // seconds for which nobody moved it on
        uint64 held;
        uint32 replaced;
        uint8 challenger;
        uint8 owner;
        uint64 seedBlock;
        uint32 seedCall;
        uint8[3] jurors; // a person plus 1
        uint8[3] verdicts; // sealed
        bool[3] opened;
        uint256 drawn; // a bit for each person that ever had a seat
        bytes32 id;
    }

    struct Proven {
        bytes32 orderHash;
        uint8 buyer;
        uint64 award;
    }

    struct Message {
        address to;
        uint8 who;
        bool isSilent; // a second time is no error
        bytes data;
    }

    struct Tally {
        uint128 attempts;
        uint128 successes;
    }

    error Broken(string rule, uint256 got, uint256 expected);

    uint256 internal constant BUYERS = 5;
    uint256 internal constant THIEF = 3; // a contract that calls back in the middle of its transfers
    uint256 internal constant WALLET = 4; // a contract that signs by ERC-1271
    uint256 internal constant FIRST_KEY = 5;
    uint256 internal constant KEYS = 3;
    uint256 internal constant FIRST_PROVIDER = 8;
    uint256 internal constant PROVIDERS = 7; // the first two have nodes, all are jurors
    uint256 internal constant STRANGER = 15;
    uint256 internal constant FIRST_SETTLER = 16;
    uint256 internal constant SETTLERS = 3;
    uint256 internal constant PEOPLE = 19;
    uint256 internal constant NODES = 4;
    uint256 internal constant LISTS = 5; // any node; {1, 2}; {3, 4}; {1}; {4}
    uint256 internal constant PURSE = 1e15;
    uint256 internal constant MOST = 1e10;
    uint256 internal constant JOB_MOST = 3e8;

    uint256 private constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
    uint256 private constant GENERATOR_X = 0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798;

    Actor[PEOPLE] internal people;
    mapping(address who => uint256 person) internal personOf; // plus 1
    Thief internal thief;
    Actor internal thiefOwner;
    Actor internal walletOwner;
    bytes32 internal domain;
    CourtRules internal law;

    Ghost[] internal ghosts;
    Job[] internal jobs;
    Dispute[] internal disputes;
    Proven[] internal proven;
    mapping(bytes32 orderHash => bool proven) internal isProven;
    Message[] internal sent;
    mapping(uint256 buyer => mapping(uint256 key => KeyGhost grant)) internal grants;
    mapping(uint256 person => ProviderGhost provider) internal providers;
    mapping(uint256 person => JurorGhost juror) internal jurors;
    mapping(uint256 person => uint256 atoms) internal accounts;
    mapping(uint256 person => uint256 atoms) internal wallets;
    mapping(uint256 nodeId => uint256 atoms) internal earned;
    mapping(uint256 nodeId => uint256 person) internal settlerOf;
    mapping(uint256 nodeId => uint16 epoch) internal epochs;
    bytes32[5] internal offerHashes;

    // Sums that the balances of the three contracts must show.
    uint256 internal sumAccounts;
    uint256 internal sumSessions;
    uint256 internal sumEarned;
    uint256 internal sumFees;
    uint256 internal sumStakes;
    uint256 internal sumSlashed;
    uint256 internal sumCourt;
    uint256 internal sumBonds;
    uint256 internal sumBurned;
    uint256[3] internal donated;
    uint256 internal treasuryGot;
    uint256 internal feeNow;
    uint256 internal feeNext;
    uint256 internal feeAt;

    uint256 internal time = START;
    uint256 internal height = 1000;
    uint256 internal lane; // makes the same seeds another campaign

    constructor() {
        setUp();
        domain = escrow.DOMAIN_SEPARATOR();
        law = _courtRules();
        _invite();
        epochs[1] = 2;
        vm.prank(provider);
        registry.rotateNodeKey(1, _nodeSigner(1, 2).addr, 0);
        settlerOf[1] = FIRST_SETTLER;
        for (uint256 i = 0; i < PROVIDERS; ++i) {
            _employ(FIRST_PROVIDER + i);
        }
        for (uint32 id = 2; id <= NODES; ++id) {
            settlerOf[id] = FIRST_SETTLER + id % SETTLERS;
            vm.prank(people[_ownerOf(id)].addr);
            registry.addNode(_nodeSigner(id, 1).addr, 0, people[settlerOf[id]].addr, "");
            epochs[id] = 1;
        }
        for (uint32 id = 1; id <= NODES; ++id) {
            offerHashes[id] = _digestOf(Messages.hash(_offer(id)));
        }
    }

    function _invite() private {
        for (uint256 i = 0; i < PEOPLE; ++i) {
            people[i] = _actor(vm.toString(i));
        }
        thiefOwner = people[THIEF];
        thief = new Thief(HookToken(address(token)), thiefOwner.addr);
        people[THIEF] = Actor(address(thief), 0);
        walletOwner = people[WALLET];
        people[WALLET].addr = address(new ContractBuyer(walletOwner.addr));
        people[FIRST_PROVIDER].addr = provider;
        people[FIRST_SETTLER] = _actor("settler");
        people[STRANGER] = _actor("stranger");
        for (uint256 i = 0; i < PEOPLE; ++i) {
            address who = people[i].addr;
            personOf[who] = i + 1;
            _mint(who, PURSE - token.balanceOf(who));
            wallets[i] = PURSE;
            _do(i, address(token), abi.encodeCall(IERC20.approve, (address(escrow), type(uint256).max)), true);
            _do(i, address(token), abi.encodeCall(IERC20.approve, (address(registry), type(uint256).max)), true);
            _do(i, address(token), abi.encodeCall(IERC20.approve, (address(court), type(uint256).max)), true);
        }
        (providers[FIRST_PROVIDER].staked, providers[FIRST_PROVIDER].putIn) = (uint64(MIN_STAKE), uint64(MIN_STAKE));
        sumStakes = MIN_STAKE;
    }

    /// @dev Stakes, and joins the pool of jurors.
    function _employ(uint256 person) private {
        ProviderGhost storage ghost = providers[person];
        uint64 staked = uint64(_fullStake(person));
        uint64 more = staked - ghost.staked;
        uint64 balance = 5 * law.jurorDeposit;
        vm.startPrank(people[person].addr);
        if (ghost.staked == 0) registry.register("");
        registry.stake(more);
        court.enrol(balance);
        vm.stopPrank();
        (ghost.staked, ghost.putIn) = (staked, staked);
        jurors[person] = JurorGhost(balance, 0, true, staked, uint40(block.number), 0);
        wallets[person] -= more + balance;
        sumStakes += more;
        sumCourt += balance;
    }

    /* CALLS */

    /// @dev Calls as a person, who may be a contract. It must work or revert, as said.
    function _do(uint256 person, address to, bytes memory data, bool works) internal {
        if (_try(person, to, data) == works) return;
        revert Broken(works ? "must work" : "must be refused", person, uint32(bytes4(data)));
    }

    function _try(uint256 person, address to, bytes memory data) internal returns (bool ok) {
        address who = _addressOf(person);
        if (person == THIEF || person == WALLET) {
            (ok,) = who.call(abi.encodeCall(ContractBuyer.act, (to, data)));
        } else {
            vm.prank(who);
            (ok,) = to.call(data);
        }
    }

    /// @dev Receivers of quotes are people too, numbered after all others.
    function _addressOf(uint256 person) internal view virtual returns (address);

    /* SIGNATURES */

    /// @dev ECDSA with the nonce 1, whose point is the generator (its y is even): a valid signature, and a hundred
    /// times faster than the test engine's. It gives the secret away, which nobody here keeps anyway.
    function _ecdsa(uint256 secret, bytes32 digest) internal pure returns (bytes32 r, bytes32 s, uint8 v) {
        uint256 low = addmod(uint256(digest), mulmod(GENERATOR_X, secret, ORDER), ORDER);
        v = 27;
        if (low > ORDER / 2) (low, v) = (ORDER - low, 28);
        return (bytes32(GENERATOR_X), bytes32(low), v);
    }

    function _signed(uint256 secret, bytes32 structHash) internal view returns (bytes memory) {
        return _signedDigest(secret, _digestOf(structHash));
    }

    function _signedDigest(uint256 secret, bytes32 digest) internal pure returns (bytes memory) {
        (bytes32 r, bytes32 s, uint8 v) = _ecdsa(secret, digest);
        return abi.encodePacked(r, s, v);
    }

    /// @dev The form of EIP-2098.
    function _signedShort(uint256 secret, bytes32 structHash) internal view returns (bytes32 r, bytes32 vs) {
        uint8 v;
        (r, vs, v) = _ecdsa(secret, _digestOf(structHash));
        if (v == 28) vs |= bytes32(uint256(1) << 255);
    }

    function _digestOf(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    /* WHO IS WHO */

    function _ownerOf(uint256 id) internal pure returns (uint256) {
        return FIRST_PROVIDER + (id + 1) % 2;
    }

    /// @dev So little for whoever has nodes that a claim may lock all of it, and one proof take it.
    function _fullStake(uint256 owner) internal pure returns (uint256) {
        return owner < FIRST_PROVIDER + 2 ? 3 * MIN_STAKE : 20 * MIN_STAKE;
    }

    /// @dev Every node has a key of its own in every epoch.
    function _nodeSecret(uint256 id, uint256 epoch) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode("node", id, epoch)));
    }

    function _nodeSigner(uint256 id, uint256 epoch) internal pure returns (Actor memory) {
        uint256 secret = _nodeSecret(id, epoch);
        return Actor(vm.addr(secret), secret);
    }

    /// @dev One atom for each unit of output.
    function _offer(uint32 id) internal pure returns (Offer memory offer) {
        (offer.nodeId, offer.priceOutPerMillion, offer.validUntil) = (id, 1e6, type(uint48).max);
    }

    function _newToken() internal override returns (IERC20) {
        return new HookDollar();
    }

    function _mint(address to, uint256 amount) internal override {
        HookDollar(address(token)).mint(to, amount);
    }
}
